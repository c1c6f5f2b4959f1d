//! The application service in the server's own process: governance bot and bridged devices.
//!
//! It still speaks HTTP to the server like anyone's: started here it only needs no process of its own.

use std::{path::Path, time::Duration};

use matron_appservice::{AppService, Config, Registration};
use tokio::sync::watch;

use crate::{
    data::{self, DataError},
    serve::stopped,
};

/// How long to wait before a service that broke is started again.
const PAUSE: Duration = Duration::from_secs(5);

/// The governance bot's name where the configuration gives none.
const BOT: &str = "matron";

/// The service's configuration; its registration file exists afterwards, made with fresh tokens if it was missing.
///
/// # Errors
/// [`DataError::Registration`] naming the file that is no good.
pub(crate) fn prepare(path: &Path) -> Result<Config, DataError> {
    let refused = |what: String| DataError::Registration { path: path.to_owned(), what };
    let config = Config::load(path).map_err(|error| refused(error.to_string()))?;
    if !config.registration.exists() {
        let url = format!("http://{}", config.listen);
        let bot = config.bot_localpart.as_deref().unwrap_or(BOT);
        let made = Registration::generate(&mut rand::rng(), &url, &config.server_name, bot);
        let text = made.to_yaml().map_err(|error| refused(error.to_string()))?;
        data::write_new(&config.registration, 0o600, text.as_bytes())?;
    }
    Ok(config)
}

/// Runs the service until `stop` turns true; one that breaks is started again.
pub(crate) async fn run(config: Config, mut stop: watch::Receiver<bool>) {
    while !*stop.borrow() {
        match AppService::start(config.clone()).await {
            Ok(mut running) => {
                tracing::info!(address = %running.listen_addr(), "the application service listens");
                tokio::select! {
                    () = stopped(&mut stop) => {}
                    () = running.wait_broken() => tracing::error!("the application service broke and starts again"),
                }
                running.stop().await;
            }
            Err(error) => tracing::error!(%error, "the application service cannot start; it is tried again"),
        }
        tokio::select! {
            () = stopped(&mut stop) => {}
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
}

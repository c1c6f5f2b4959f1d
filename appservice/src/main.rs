//! The binary `matron-appservice`.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use matron_appservice::{Config, Registration, run};
use tracing_subscriber::EnvFilter;

/// Matron's application service: the governance bot and the bridged devices.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// The configuration file (TOML).
    #[arg(long, required_unless_present = "generate_registration")]
    config: Option<PathBuf>,
    /// Prints a new registration with fresh tokens and ends.
    #[arg(long, requires = "server_name")]
    generate_registration: bool,
    /// With --generate-registration: where the homeserver reaches this application service.
    #[arg(long, default_value = "http://127.0.0.1:8010")]
    url: String,
    /// With --generate-registration: the homeserver's name.
    #[arg(long)]
    server_name: Option<String>,
    /// With --generate-registration: the bot is another user than the sender, as homeservers need that do not let
    /// the sender sync (Synapse).
    #[arg(long)]
    separate_sender: bool,
    /// With --generate-registration: the bot's localpart.
    #[arg(long, default_value = "matron")]
    bot_localpart: String,
}

#[tokio::main]
async fn main() -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_unset| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    match start(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "the application service ends");
            ExitCode::FAILURE
        }
    }
}

async fn start(arguments: Arguments) -> Result<(), Box<dyn std::error::Error>> {
    if let (true, Some(server_name)) = (arguments.generate_registration, &arguments.server_name) {
        let registration =
            Registration::generate(&mut rand::rng(), &arguments.url, server_name, &arguments.bot_localpart);
        std::io::stdout().write_all(registration.to_yaml()?.as_bytes())?;
        return Ok(());
    }
    let Some(path) = arguments.config else {
        return Ok(());
    };
    run(Config::load(&path)?, stop_signal()).await?;
    Ok(())
}

async fn stop_signal() {
    let interrupted = tokio::signal::ctrl_c();
    match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
        Ok(mut terminated) => {
            tokio::select! {
                _ = interrupted => {}
                _ = terminated.recv() => {}
            }
        }
        Err(_no_signals) => {
            let _ended = interrupted.await;
        }
    }
}

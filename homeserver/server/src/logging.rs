//! Structured logs on standard error: text for people, JSON for collectors. Content and tokens never reach them.

use tracing_subscriber::{EnvFilter, fmt, prelude::*};

use crate::config::{LogFormat, Logging};

/// Libraries that tell much and help little, or show what passes through them; the operator's words come after and win.
const QUIET: &str = "ruma_state_res=warn,ruma_signatures=warn,hyper=info,hyper_util=info,rustls=info,sled=warn,";

/// Whether the level can be understood.
///
/// # Errors
/// A sentence that says what is wrong with it.
pub(crate) fn check_level(level: &str) -> Result<(), String> {
    level.parse::<EnvFilter>().map(|_| ()).map_err(|error| error.to_string())
}

/// Log lines go to standard error from here on, as the configuration says.
pub(crate) fn start(logging: &Logging) {
    let filter = EnvFilter::try_new(format!("{QUIET}{}", logging.level)).unwrap_or_else(|_| EnvFilter::new("info"));
    let registry = tracing_subscriber::registry().with(filter);
    // A second start (tests in one process) keeps the first.
    let _ = match logging.format {
        LogFormat::Text => registry.with(fmt::layer().with_writer(std::io::stderr).with_ansi(false)).try_init(),
        LogFormat::Json => {
            registry.with(fmt::layer().json().flatten_event(true).with_writer(std::io::stderr)).try_init()
        }
    };
}

//! `matron config example` and `matron config check`.

use std::path::Path;

use super::say;
use crate::{
    cli::ConfigCommand,
    config::{Config, example},
    failure::Failure,
};

/// # Errors
/// [`Failure::Config`] naming what is wrong.
pub(super) fn run(command: &ConfigCommand, file: Option<&Path>) -> Result<(), Failure> {
    match command {
        ConfigCommand::Example => say(example()?.trim_end()),
        ConfigCommand::Check => {
            let config = Config::load(file)?;
            super::policy::check(&config)?;
            say(format!("The configuration of {} is good.", config.server.server_name));
        }
    }
    Ok(())
}

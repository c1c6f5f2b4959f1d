//! `matron keyring new`: after a loss, and never by itself.

use super::say;
use crate::{cli::KeyringCommand, config::Config, data, failure::Failure};

/// # Errors
/// [`Failure::Data`] where there is a key ring or never was a server; nothing is changed then.
pub(super) fn run(command: &KeyringCommand, config: &Config) -> Result<(), Failure> {
    match command {
        KeyringCommand::New => {
            let path = data::new_key_ring(config)?;
            say(format!(
                "An empty key ring is in {}. What the lost one sealed cannot be read any more.",
                path.display()
            ));
            Ok(())
        }
    }
}

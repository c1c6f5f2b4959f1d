//! `matron backup DIR`: the server writes, this command asks.

use http::Method;
use serde_json::json;

use super::{ask, say};
use crate::{cli::BackupArguments, config::Config, failure::Failure};

/// # Errors
/// [`Failure::Operator`] when the directory exists or cannot be written.
pub(super) fn run(arguments: &BackupArguments, config: &Config) -> Result<(), Failure> {
    let directory = std::path::absolute(&arguments.directory).map_err(Failure::io("cannot name the directory"))?;
    let body = json!({"directory": directory, "with_key_ring": arguments.with_key_ring});
    ask(config, Method::POST, "/backup", Some(body))?;
    say(format!("The backup is in {}.", directory.display()));
    say("The master key is not in it: keep a copy of that apart from backups.");
    if arguments.with_key_ring {
        say("The key ring is in it: what is deleted from now on stays readable with this copy until you destroy it.");
    } else {
        say("The key ring is not in it: content can be read with the key ring in the data directory only.");
    }
    Ok(())
}

//! `matron audit verify|show`.

use http::Method;
use serde_json::Value;

use super::{ask, say, text};
use crate::{cli::AuditCommand, config::Config, failure::Failure};

/// # Errors
/// [`Failure::CheckFailed`] naming the first entry that does not fit.
pub(super) fn run(command: AuditCommand, config: &Config) -> Result<(), Failure> {
    match command {
        AuditCommand::Verify => {
            let answer = ask(config, Method::POST, "/audit/verify", None)?;
            if let Some(broken) = answer.get("broken").and_then(Value::as_str) {
                return Err(Failure::CheckFailed(broken.to_owned()));
            }
            let entries = answer.get("entries").and_then(Value::as_u64).unwrap_or(0);
            say(format!("The audit log is whole: {entries} entries, head {}.", text(&answer, "head")));
        }
        AuditCommand::Show { from, limit } => {
            let answer = ask(config, Method::GET, &format!("/audit?from={from}&limit={limit}"), None)?;
            for entry in answer.get("entries").and_then(Value::as_array).into_iter().flatten() {
                say(entry.to_string());
            }
        }
    }
    Ok(())
}

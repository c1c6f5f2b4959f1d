//! `matron policy explain|check|show`.

use std::path::Path;

use http::Method;
use matron_policy::PolicyLayer;

use super::{ask, keyfile, say, segment, text};
use crate::{cli::PolicyCommand, config::Config, failure::Failure};

/// # Errors
/// [`Failure`] with what is wrong, or the server's refusal.
pub(super) fn run(command: PolicyCommand, config: &Config) -> Result<(), Failure> {
    match command {
        PolicyCommand::Explain { decision_id } => {
            let answer = ask(config, Method::GET, &format!("/policy/decisions/{}", segment(&decision_id)), None)?;
            say(text(&answer, "explanation"));
        }
        PolicyCommand::Check => {
            check(config)?;
            say("The policy of the configuration is good.");
        }
        PolicyCommand::Show => {
            let layer = layer(config)?.unwrap_or_default();
            let printed = serde_json::to_string_pretty(&layer).map_err(|error| Failure::Document(error.to_string()))?;
            say(printed);
        }
    }
    Ok(())
}

/// Whether the deployment's layer, keys and register are good.
///
/// # Errors
/// [`Failure::Document`] naming what is wrong.
pub(super) fn check(config: &Config) -> Result<(), Failure> {
    let policy = &config.settings.policy;
    layer(config)?;
    let keys = keyfile::public_keys(policy.register_keys.values())?;
    let Some(file) = &policy.register_file else { return Ok(()) };
    if keys.is_empty() {
        return Err(Failure::Document(
            "`policy.register_file` is set, but `policy.register_keys` names no key that may sign it".to_owned(),
        ));
    }
    super::register::verified(Path::new(file), &policy.register_keys.values().cloned().collect::<Vec<_>>(), None)?;
    Ok(())
}

fn layer(config: &Config) -> Result<Option<PolicyLayer>, Failure> {
    config
        .settings
        .policy
        .layer
        .clone()
        .map(serde_json::from_value)
        .transpose()
        .map_err(|error| Failure::Document(format!("`policy.layer`: {error}")))
}

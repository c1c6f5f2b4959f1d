//! `matron credential issue|show|verify|revoke`.

use std::{collections::BTreeMap, path::Path};

use matron_policy::{Credential, CredentialClaims, CredentialStatus, RevocationNotice, Revocations, VerificationLevel};
use serde_json::{Value, json};

use super::{ask, keyfile, now_ms, read, register, say, segment};
use crate::{cli::CredentialCommand, config::Config, failure::Failure};

/// The largest credential that is read, bytes.
const MAX_BYTES: u64 = 8 * 1024;
const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// # Errors
/// [`Failure::Document`] with what is wrong with the credential.
pub(super) fn run(command: CredentialCommand, config: Option<&Path>) -> Result<(), Failure> {
    match command {
        CredentialCommand::Issue { user_id, organisation, key, profession, roles, level, days, install } => {
            let key = keyfile::load(&key)?;
            let now = now_ms();
            let serial: [u8; 8] = rand::random();
            let claims = CredentialClaims {
                user_id: user_id.clone(),
                organisation,
                profession,
                roles: roles.into_iter().collect(),
                level: level_of(&level)?,
                checked_at_ms: now,
                expires_at_ms: now.saturating_add(days.saturating_mul(DAY_MS)),
                serial: hex::encode(serial),
            };
            let credential =
                Credential::issue(claims, &key.id, &key.key).map_err(|error| Failure::Document(error.to_string()))?;
            let value = credential.to_value();
            if install {
                let path = format!("/users/{}/credential", segment(&user_id));
                ask(&Config::load(config)?, http::Method::PUT, &path, Some(value.clone()))?;
            }
            say(value.to_string());
            Ok(())
        }
        CredentialCommand::Show { file } => {
            show(&parsed(&file)?);
            Ok(())
        }
        CredentialCommand::Verify { file, register, public_key } => {
            verify(&file, register.as_deref(), &public_key, config)
        }
        CredentialCommand::Revoke { serial, organisation, key, print_only } => {
            let key = keyfile::load(&key)?;
            let now = now_ms();
            let notice =
                RevocationNotice::issue(&organisation, BTreeMap::from([(serial, now)]), now, &key.id, &key.key)
                    .and_then(|notice| notice.to_bytes())
                    .map_err(|error| Failure::Document(error.to_string()))?;
            let text = String::from_utf8_lossy(&notice).into_owned();
            if !print_only {
                let body = serde_json::from_str(&text).map_err(|error| Failure::Document(error.to_string()))?;
                ask(&Config::load(config)?, http::Method::POST, "/revocations", Some(body))?;
            }
            say(text);
            Ok(())
        }
    }
}

fn level_of(text: &str) -> Result<VerificationLevel, Failure> {
    serde_json::from_value(json!(text)).map_err(|error| Failure::Document(format!("--level: {error}")))
}

fn parsed(file: &Path) -> Result<Credential, Failure> {
    Credential::parse(&read(file, MAX_BYTES)?)
        .map_err(|error| Failure::Document(format!("{}: {error}", file.display())))
}

fn show(credential: &Credential) {
    let roles: Vec<_> = credential.roles.iter().map(String::as_str).collect();
    let level = serde_json::to_value(credential.level).ok();
    say(format!("user          {}", credential.user_id));
    say(format!("organisation  {}", credential.organisation));
    say(format!("profession    {}", credential.profession));
    say(format!("roles         {}", roles.join(" ")));
    say(format!("level         {}", level.as_ref().and_then(Value::as_str).unwrap_or_default()));
    say(format!("checked       {} ms since 1970", credential.checked_at_ms));
    say(format!("expires       {} ms since 1970", credential.expires_at_ms));
    say(format!("serial        {}", credential.serial));
    say(format!("signed with   {}", credential.key_id));
}

fn verify(file: &Path, register: Option<&Path>, keys: &[String], config: Option<&Path>) -> Result<(), Failure> {
    let credential = parsed(file)?;
    let register = match register {
        Some(path) => register::verified(path, keys, config)?,
        None => {
            let settings = Config::load(config)?.settings;
            let path = settings.policy.register_file.ok_or_else(|| {
                Failure::Document("no register: give --register or configure `policy.register_file`".to_owned())
            })?;
            register::verified(Path::new(&path), keys, config)?
        }
    };
    let revocations = Revocations::from_register(&register);
    let no = |sentence: String| Err(Failure::CheckFailed(sentence));
    match credential.verify(&register, &revocations, &credential.user_id, now_ms()) {
        CredentialStatus::Valid { .. } => {
            say(format!(
                "The credential of {} is good until {} ms since 1970.",
                credential.user_id, credential.expires_at_ms
            ));
            Ok(())
        }
        CredentialStatus::Expired { expired_at_ms } => no(format!("it expired at {expired_at_ms} ms since 1970")),
        CredentialStatus::Revoked { revoked_at_ms } => no(format!("it was revoked at {revoked_at_ms} ms since 1970")),
        CredentialStatus::Forged(why) => no(format!("it is not genuine: {why:?}")),
        CredentialStatus::Missing | CredentialStatus::Unverifiable => {
            no("it cannot be verified: the register is not current".to_owned())
        }
    }
}

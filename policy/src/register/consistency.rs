//! Whether a register makes sense in itself.

use std::collections::{BTreeMap, BTreeSet};

use super::{MAX_ORGANISATIONS, MAX_PER_ORGANISATION, MAX_REVOCATIONS, Organisation, Register, RegisterError};
use crate::keys;
use crate::names;

/// Length of the shortest local part of a pattern, with `@` and `*`: `@lab*`.
const SHORTEST_PATTERN: usize = 5;

impl Register {
    /// Codes are unique, a server belongs to one organisation, keys are keys, users are at home, lists are bounded.
    ///
    /// # Errors
    /// The first fault, as a [`RegisterError`] that names it.
    pub fn check_consistency(&self) -> Result<(), RegisterError> {
        if self.expires_at_ms <= self.issued_at_ms {
            return Err(RegisterError::NeverValid);
        }
        bounded("organisations", self.organisations.len(), MAX_ORGANISATIONS)?;
        bounded("revocations", self.revocations.len(), MAX_REVOCATIONS)?;
        let mut codes = BTreeSet::new();
        let mut servers: BTreeMap<&str, &str> = BTreeMap::new();
        for (index, organisation) in self.organisations.iter().enumerate() {
            check_organisation(organisation, index + 1)?;
            if !codes.insert(organisation.code.as_str()) {
                return Err(RegisterError::DuplicateCode { code: organisation.code.clone() });
            }
            for server in &organisation.server_names {
                if let Some(first) = servers.insert(server, &organisation.code) {
                    return Err(RegisterError::DuplicateServer {
                        server: server.clone(),
                        first: first.to_owned(),
                        second: organisation.code.clone(),
                    });
                }
            }
        }
        for (index, revocation) in self.revocations.iter().enumerate() {
            if !codes.contains(revocation.organisation.as_str()) || !names::is_code(&revocation.serial) {
                return Err(RegisterError::MalformedRevocation { position: index + 1 });
            }
        }
        Ok(())
    }
}

fn check_organisation(organisation: &Organisation, position: usize) -> Result<(), RegisterError> {
    let malformed = |what| RegisterError::MalformedCode { what, position };
    if !names::is_code(&organisation.code) {
        return Err(malformed("code"));
    }
    if !names::is_code(&organisation.jurisdiction) {
        return Err(malformed("jurisdiction"));
    }
    if organisation.name.is_empty() || organisation.name.len() > 256 || organisation.name.chars().any(char::is_control)
    {
        return Err(malformed("name"));
    }
    bounded("server names", organisation.server_names.len(), MAX_PER_ORGANISATION)?;
    bounded("credential keys", organisation.credential_keys.len(), MAX_PER_ORGANISATION)?;
    bounded("governance users", organisation.governance_users.len(), MAX_PER_ORGANISATION)?;
    bounded("service users", organisation.service_users.len(), MAX_PER_ORGANISATION)?;
    if !organisation.server_names.iter().all(|name| names::is_server_name(name)) {
        return Err(RegisterError::MalformedServerName { organisation: organisation.code.clone() });
    }
    if !organisation.credential_keys.keys().all(|key_id| names::is_code(key_id)) {
        return Err(malformed("credential key id"));
    }
    check_keys(organisation)?;
    let at_home = |user_id: &String| {
        names::server_of(user_id).is_some_and(|server| organisation.server_names.iter().any(|own| own == server))
    };
    if !organisation.governance_users.iter().chain(&organisation.service_users).all(at_home) {
        return Err(RegisterError::ForeignUser { organisation: organisation.code.clone() });
    }
    // A machine needs no credential: a pattern must not make machines of people.
    let boundless = |pattern: &String| {
        let local = pattern.split(':').next().unwrap_or_default();
        local.ends_with('*') && local.len() < SHORTEST_PATTERN
    };
    if organisation.service_users.iter().any(boundless) {
        return Err(RegisterError::BoundlessPattern { organisation: organisation.code.clone() });
    }
    Ok(())
}

fn check_keys(organisation: &Organisation) -> Result<(), RegisterError> {
    let policy_server_key = organisation.policy_server_key.iter().map(|key| ("policy_server_key", key.as_str()));
    let credential_keys = organisation.credential_keys.iter().map(|(id, key)| (id.as_str(), key.as_str()));
    for (key_id, key) in credential_keys.chain(policy_server_key) {
        keys::decode_verifying_key(key).map_err(|source| RegisterError::MalformedKey {
            organisation: organisation.code.clone(),
            key_id: key_id.to_owned(),
            source,
        })?;
    }
    Ok(())
}

fn bounded(what: &'static str, count: usize, limit: usize) -> Result<(), RegisterError> {
    if count > limit { Err(RegisterError::TooMany { what, count }) } else { Ok(()) }
}

//! A register that was verified, ready to be asked.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use ed25519_dalek::VerifyingKey;

use super::{Organisation, Register, RegisterError};
use crate::facts::RegisterStatus;
use crate::keys;
use crate::names;
use crate::revision::Digest;

/// How far, in milliseconds, the clocks of two machines may differ: 5 minutes.
pub(crate) const CLOCK_TOLERANCE_MS: u64 = 5 * 60 * 1000;

/// A register that one of the trusted keys signed, indexed. Only [`super::SignedRegister::verify`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedRegister {
    register: Register,
    digest: Digest,
    by_code: BTreeMap<String, usize>,
    by_server: BTreeMap<String, usize>,
    credential_keys: BTreeMap<(String, String), VerifyingKey>,
}

impl VerifiedRegister {
    pub(super) fn index(register: Register, digest: Digest) -> Result<Self, RegisterError> {
        register.check_consistency()?;
        let mut by_code = BTreeMap::new();
        let mut by_server = BTreeMap::new();
        let mut credential_keys = BTreeMap::new();
        for (index, organisation) in register.organisations.iter().enumerate() {
            by_code.insert(organisation.code.clone(), index);
            for server in &organisation.server_names {
                by_server.insert(server.clone(), index);
            }
            for (key_id, text) in &organisation.credential_keys {
                let key = keys::decode_verifying_key(text).map_err(|source| RegisterError::MalformedKey {
                    organisation: organisation.code.clone(),
                    key_id: key_id.clone(),
                    source,
                })?;
                credential_keys.insert((organisation.code.clone(), key_id.clone()), key);
            }
        }
        Ok(Self { register, digest, by_code, by_server, credential_keys })
    }

    /// The document.
    #[must_use]
    pub fn register(&self) -> &Register {
        &self.register
    }

    /// The document's version.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.register.version
    }

    /// The digest of what was signed.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The organisation with this code.
    #[must_use]
    pub fn organisation(&self, code: &str) -> Option<&Organisation> {
        self.register.organisations.get(*self.by_code.get(code)?)
    }

    /// The organisation to which this server belongs.
    #[must_use]
    pub fn organisation_of_server(&self, server_name: &str) -> Option<&Organisation> {
        self.register.organisations.get(*self.by_server.get(server_name)?)
    }

    /// All server names of the register, with the code of their organisation, in order.
    pub fn servers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.by_server.iter().filter_map(|(server, index)| {
            Some((server.as_str(), self.register.organisations.get(*index)?.code.as_str()))
        })
    }

    /// The key with which an organisation signs credentials.
    #[must_use]
    pub fn credential_key(&self, organisation: &str, key_id: &str) -> Option<&VerifyingKey> {
        self.credential_keys.get(&(organisation.to_owned(), key_id.to_owned()))
    }

    /// Whether the user governs rooms in its organisation's name.
    #[must_use]
    pub fn is_governance(&self, user_id: &str) -> bool {
        self.home_of(user_id).is_some_and(|home| home.governance_users.iter().any(|named| named == user_id))
    }

    /// Whether the user is one of its organisation's machines.
    #[must_use]
    pub fn is_service(&self, user_id: &str) -> bool {
        self.home_of(user_id)
            .is_some_and(|home| home.service_users.iter().any(|named| names::user_matches(named, user_id)))
    }

    /// Whether the register holds at this time.
    ///
    /// # Errors
    /// [`RegisterError::Expired`], or [`RegisterError::NotYetValid`] if it is issued more than five minutes ahead.
    pub fn check_current(&self, now_ms: u64) -> Result<(), RegisterError> {
        if self.register.issued_at_ms > now_ms.saturating_add(CLOCK_TOLERANCE_MS) {
            return Err(RegisterError::NotYetValid { issued_at_ms: self.register.issued_at_ms });
        }
        if now_ms >= self.register.expires_at_ms {
            return Err(RegisterError::Expired { expired_at_ms: self.register.expires_at_ms });
        }
        Ok(())
    }

    /// The register's state at this time, as a fact for [`crate::decide()`]. A register from the future counts as none.
    #[must_use]
    pub fn status(&self, now_ms: u64) -> RegisterStatus {
        match self.check_current(now_ms) {
            Ok(()) => RegisterStatus::Fresh { version: self.register.version },
            Err(RegisterError::Expired { expired_at_ms }) => RegisterStatus::Stale { expired_at_ms },
            Err(_) => RegisterStatus::None,
        }
    }

    fn home_of(&self, user_id: &str) -> Option<&Organisation> {
        self.organisation_of_server(names::server_of(user_id)?)
    }
}

/// The register to go on with: the offered one, if it is newer than the current one or the very same.
///
/// # Errors
/// [`RegisterError::RolledBack`] for an older one, [`RegisterError::Conflict`] for another of the same version.
/// Keep the current one then.
pub fn accept(
    current: Option<&VerifiedRegister>,
    offered: VerifiedRegister,
) -> Result<VerifiedRegister, RegisterError> {
    let Some(current) = current else {
        return Ok(offered);
    };
    match offered.version().cmp(&current.version()) {
        Ordering::Greater => Ok(offered),
        Ordering::Equal if offered.digest == current.digest => Ok(offered),
        Ordering::Equal => Err(RegisterError::Conflict { version: offered.version() }),
        Ordering::Less => Err(RegisterError::RolledBack { current: current.version(), offered: offered.version() }),
    }
}

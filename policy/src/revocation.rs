//! Credentials that were taken back: in the register, or told from server to server.

use std::collections::BTreeMap;

use ed25519_dalek::SigningKey;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

use crate::canonical::{self, CanonicalError};
use crate::keys;
use crate::names;
use crate::register::{Revocation, VerifiedRegister};

/// The largest notice that is read, in bytes: 1 MiB.
pub const MAX_NOTICE_BYTES: usize = 1024 * 1024;
/// How many serials one notice may name.
pub const MAX_SERIALS: usize = 10_000;
/// How many revocations a server keeps in mind.
pub const MAX_REVOCATIONS: usize = 1_000_000;

/// An organisation takes credentials back: a document that stands on its own, whoever passes it on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevocationNotice {
    /// `org.matron.revocation`: so that no other signed document can pass for a notice.
    #[serde(rename = "type")]
    pub kind: NoticeType,
    /// Code of the organisation.
    pub organisation: String,
    /// When the notice was made, in milliseconds since 1970.
    pub issued_at_ms: u64,
    /// From serial to the time at which the credential was taken back, in milliseconds since 1970.
    pub revoked: BTreeMap<String, u64>,
    /// The organisation's key that signed.
    pub key_id: String,
    /// Base64 of the ed25519 signature over the canonical JSON of all other fields.
    pub signature: String,
}

/// The only type of a notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum NoticeType {
    /// `org.matron.revocation`.
    #[serde(rename = "org.matron.revocation")]
    Revocation,
}

/// Why a notice does not count.
#[derive(Debug, Error)]
pub enum RevocationError {
    /// A list or a single value.
    #[error("the revocation notice is not an object")]
    NotAnObject,
    /// Too long, no strict JSON, or a number beyond 2^53.
    #[error("the revocation notice is corrupt: {0}")]
    Corrupt(#[source] CanonicalError),
    /// A field is missing, unknown or of the wrong type.
    #[error("the revocation notice cannot be read: {0}")]
    Unreadable(#[source] serde_json::Error),
    /// It names no serial, too many, or a malformed one.
    #[error("the revocation notice must name 1 to {MAX_SERIALS} well-formed serials")]
    Serials,
    /// The register knows no such organisation, or no such key of it.
    #[error("the register has no such key of the organisation that the revocation notice names")]
    UnknownKey,
    /// The signature does not fit.
    #[error("the signature of the revocation notice does not fit")]
    BadSignature,
    /// So many were kept already that this notice finds no room.
    #[error("this server keeps {MAX_REVOCATIONS} revocations and has no room for more")]
    Full,
}

impl RevocationNotice {
    /// A signed notice that takes these credentials back.
    ///
    /// # Errors
    /// [`RevocationError::Serials`] or [`RevocationError::Corrupt`].
    pub fn issue(
        organisation: &str,
        revoked: BTreeMap<String, u64>,
        issued_at_ms: u64,
        key_id: &str,
        key: &SigningKey,
    ) -> Result<Self, RevocationError> {
        let mut notice = Self {
            kind: NoticeType::Revocation,
            organisation: organisation.to_owned(),
            issued_at_ms,
            revoked,
            key_id: key_id.to_owned(),
            signature: String::new(),
        };
        notice.check_serials()?;
        notice.signature = keys::sign(key, &notice.payload()?);
        Ok(notice)
    }

    /// The notice that the bytes hold, verified with the organisation's key in the register.
    ///
    /// # Errors
    /// A [`RevocationError`].
    pub fn verify(bytes: &[u8], register: &VerifiedRegister) -> Result<Self, RevocationError> {
        let value = canonical::parse(bytes, MAX_NOTICE_BYTES).map_err(RevocationError::Corrupt)?;
        // A derived reader also takes a list of the fields' values; there is one form only.
        if !value.is_object() {
            return Err(RevocationError::NotAnObject);
        }
        let notice = Self::deserialize(&value).map_err(RevocationError::Unreadable)?;
        notice.check(register)?;
        Ok(notice)
    }

    /// Whether the notice is well-formed and signed by its organisation.
    ///
    /// # Errors
    /// A [`RevocationError`].
    pub fn check(&self, register: &VerifiedRegister) -> Result<(), RevocationError> {
        self.check_serials()?;
        let key = register.credential_key(&self.organisation, &self.key_id).ok_or(RevocationError::UnknownKey)?;
        if keys::verify(key, &self.payload()?, &self.signature) { Ok(()) } else { Err(RevocationError::BadSignature) }
    }

    /// The notice in canonical JSON, to be kept or passed on.
    ///
    /// # Errors
    /// [`RevocationError::Corrupt`] if a time is beyond 2^53.
    pub fn to_bytes(&self) -> Result<Vec<u8>, RevocationError> {
        canonical::of(self).map_err(RevocationError::Corrupt)
    }

    fn check_serials(&self) -> Result<(), RevocationError> {
        let sound = self.revoked.keys().all(|serial| names::is_code(serial));
        if sound && (1..=MAX_SERIALS).contains(&self.revoked.len()) { Ok(()) } else { Err(RevocationError::Serials) }
    }

    fn payload(&self) -> Result<Vec<u8>, RevocationError> {
        let mut value = serde_json::to_value(self).map_err(RevocationError::Unreadable)?;
        if let Value::Object(map) = &mut value {
            map.remove("signature");
        }
        canonical::to_bytes(&value).map_err(RevocationError::Corrupt)
    }
}

/// All revocations that a server knows of. It only grows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Revocations {
    by_organisation: BTreeMap<String, BTreeMap<String, u64>>,
    count: usize,
}

impl Revocations {
    /// The revocations that the register holds.
    #[must_use]
    pub fn from_register(register: &VerifiedRegister) -> Self {
        let mut all = Self::default();
        all.add_register(register);
        all
    }

    /// Adds those that a register holds. Returns what is new.
    pub fn add_register(&mut self, register: &VerifiedRegister) -> Vec<Revocation> {
        let listed = &register.register().revocations;
        listed.iter().filter(|one| self.insert(&one.organisation, &one.serial, one.revoked_at_ms)).cloned().collect()
    }

    /// Adds those of a notice, after verifying it. Returns what is new, for instance to evict and to pass on.
    ///
    /// # Errors
    /// As [`RevocationNotice::check`], and [`RevocationError::Full`]. Nothing is added then.
    pub fn add_notice(
        &mut self,
        notice: &RevocationNotice,
        register: &VerifiedRegister,
    ) -> Result<Vec<Revocation>, RevocationError> {
        notice.check(register)?;
        if self.count.saturating_add(notice.revoked.len()) > MAX_REVOCATIONS {
            return Err(RevocationError::Full);
        }
        let mut added = Vec::new();
        for (serial, at) in &notice.revoked {
            if self.insert(&notice.organisation, serial, *at) {
                added.push(Revocation {
                    organisation: notice.organisation.clone(),
                    serial: serial.clone(),
                    revoked_at_ms: *at,
                });
            }
        }
        Ok(added)
    }

    /// Adds one that was verified before and kept since. Returns whether it is new.
    ///
    /// A revocation outlives the key of its notice and its line in the register: only give what came from
    /// [`Revocations::add_register`] or [`Revocations::add_notice`].
    pub fn add_known(&mut self, revocation: &Revocation) -> bool {
        self.insert(&revocation.organisation, &revocation.serial, revocation.revoked_at_ms)
    }

    /// When the credential was taken back, in milliseconds since 1970; `None` if it was not.
    #[must_use]
    pub fn revoked_at_ms(&self, organisation: &str, serial: &str) -> Option<u64> {
        self.by_organisation.get(organisation)?.get(serial).copied()
    }

    /// How many are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether none is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn insert(&mut self, organisation: &str, serial: &str, at_ms: u64) -> bool {
        let serials = self.by_organisation.entry(organisation.to_owned()).or_default();
        if let Some(known) = serials.get_mut(serial) {
            *known = at_ms.min(*known);
            return false;
        }
        serials.insert(serial.to_owned(), at_ms);
        self.count += 1;
        true
    }
}

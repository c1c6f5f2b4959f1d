//! Clinician credentials: an organisation vouches for a person, and every other can check it offline.

use std::collections::BTreeSet;
use std::str::FromStr;

use ed25519_dalek::SigningKey;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

use crate::canonical::{self, CanonicalError};
use crate::keys;
use crate::names;
use crate::register::{CLOCK_TOLERANCE_MS, RegisterError, VerifiedRegister};
use crate::revocation::Revocations;

/// The field of `m.room.member` content, and of the profile, that carries a credential.
pub const CREDENTIAL_FIELD: &str = "org.matron.credential";
/// The role that lets a person change the policy state of rooms.
pub const OFFICER_ROLE: &str = "compliance-officer";
/// How many roles a credential may hold.
pub const MAX_ROLES: usize = 32;
/// The largest credential that is read, in bytes.
pub const MAX_CREDENTIAL_BYTES: usize = 8 * 1024;

/// What was verified of a person. The order is that of strength.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VerificationLevel {
    /// Who the person is.
    Identity,
    /// That the organisation employs the person.
    Employment,
    /// That the person may practise, by the profession's register.
    RightToPractise,
}

impl FromStr for VerificationLevel {
    type Err = CredentialError;

    fn from_str(text: &str) -> Result<Self, CredentialError> {
        match text {
            "identity" => Ok(Self::Identity),
            "employment" => Ok(Self::Employment),
            "right_to_practise" => Ok(Self::RightToPractise),
            _ => Err(CredentialError::Malformed("level")),
        }
    }
}

/// What an organisation says of a person. Registration numbers stay with the organisation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CredentialClaims {
    /// Matrix user id.
    pub user_id: String,
    /// Code of the organisation that vouches.
    pub organisation: String,
    /// Profession: `doctor`, `nurse`.
    pub profession: String,
    /// Roles: `ward-7`, [`OFFICER_ROLE`].
    pub roles: BTreeSet<String>,
    /// What was verified.
    pub level: VerificationLevel,
    /// When it was last verified, in milliseconds since 1970.
    pub checked_at_ms: u64,
    /// Until when the credential holds, in milliseconds since 1970.
    pub expires_at_ms: u64,
    /// Its number, unique within the organisation.
    pub serial: String,
}

/// A signed credential, as it stands in [`CREDENTIAL_FIELD`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credential {
    /// `org.matron.credential`: so that no other signed document can pass for a credential.
    #[serde(rename = "type")]
    pub kind: CredentialType,
    /// Matrix user id.
    pub user_id: String,
    /// Code of the organisation that vouches.
    pub organisation: String,
    /// Profession.
    pub profession: String,
    /// Roles.
    #[serde(default)]
    pub roles: BTreeSet<String>,
    /// What was verified.
    pub level: VerificationLevel,
    /// When it was last verified, in milliseconds since 1970.
    pub checked_at_ms: u64,
    /// Until when the credential holds, in milliseconds since 1970.
    pub expires_at_ms: u64,
    /// Its number, unique within the organisation.
    pub serial: String,
    /// The organisation's key that signed.
    pub key_id: String,
    /// Base64 of the ed25519 signature over the canonical JSON of all other fields.
    pub signature: String,
}

/// The only type of a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum CredentialType {
    /// `org.matron.credential`.
    #[serde(rename = "org.matron.credential")]
    Credential,
}

/// Why a credential cannot be issued or read.
#[derive(Debug, Error)]
pub enum CredentialError {
    /// A list or a single value.
    #[error("the credential is not an object")]
    NotAnObject,
    /// Too long, no strict JSON, or a number beyond 2^53.
    #[error("the credential is corrupt: {0}")]
    Corrupt(#[source] CanonicalError),
    /// A field is missing, unknown or of the wrong type.
    #[error("the credential cannot be read: {0}")]
    Unreadable(#[source] serde_json::Error),
    /// A field has a value that none may have.
    #[error("the credential has a malformed {0}")]
    Malformed(&'static str),
    /// It expires before it was checked.
    #[error("the credential expires before it was checked")]
    NeverValid,
}

/// In what state somebody's credential is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CredentialStatus {
    /// Signed, current and not taken back.
    Valid {
        /// The credential.
        credential: Box<Credential>,
    },
    /// Genuine, but past its time.
    Expired {
        /// When it expired, in milliseconds since 1970.
        expired_at_ms: u64,
    },
    /// Genuine, but taken back.
    Revoked {
        /// When, in milliseconds since 1970.
        revoked_at_ms: u64,
    },
    /// Not what it says it is.
    Forged(Forgery),
    /// None was shown.
    Missing,
    /// There is one, and at this moment nothing to verify it with.
    Unverifiable,
}

/// What is wrong with a credential that is no credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Forgery {
    /// It cannot be read.
    Unreadable,
    /// It was issued to somebody else.
    OtherPerson,
    /// Its organisation does not own the person's server.
    OtherOrganisation,
    /// Its organisation is not in the register.
    UnknownOrganisation,
    /// Its organisation has no such key.
    UnknownKey,
    /// The signature does not fit: it was altered.
    BadSignature,
    /// It was checked in the future.
    FromTheFuture,
}

impl Credential {
    /// A credential with these claims, signed by the organisation's key.
    ///
    /// # Errors
    /// [`CredentialError`] if a claim is malformed.
    pub fn issue(claims: CredentialClaims, key_id: &str, key: &SigningKey) -> Result<Self, CredentialError> {
        let mut credential = Self {
            kind: CredentialType::Credential,
            user_id: claims.user_id,
            organisation: claims.organisation,
            profession: claims.profession,
            roles: claims.roles,
            level: claims.level,
            checked_at_ms: claims.checked_at_ms,
            expires_at_ms: claims.expires_at_ms,
            serial: claims.serial,
            key_id: key_id.to_owned(),
            signature: String::new(),
        };
        credential.check_form()?;
        credential.signature = keys::sign(key, &credential.payload()?);
        Ok(credential)
    }

    /// The credential that the bytes hold. Nothing is verified yet.
    ///
    /// # Errors
    /// [`CredentialError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, CredentialError> {
        let value = canonical::parse(bytes, MAX_CREDENTIAL_BYTES).map_err(CredentialError::Corrupt)?;
        Self::from_value(&value)
    }

    /// The credential that a JSON value holds. Nothing is verified yet.
    ///
    /// # Errors
    /// [`CredentialError`].
    pub fn from_value(value: &Value) -> Result<Self, CredentialError> {
        // A derived reader also takes a list of the fields' values; there is one form only.
        if !value.is_object() {
            return Err(CredentialError::NotAnObject);
        }
        let credential = Self::deserialize(value).map_err(CredentialError::Unreadable)?;
        credential.check_form()?;
        Ok(credential)
    }

    /// The value of [`CREDENTIAL_FIELD`].
    #[must_use]
    pub fn to_value(&self) -> Value {
        serde_json::to_value(self).unwrap_or(Value::Null)
    }

    /// The state of this credential in this person's hands at this time.
    #[must_use]
    pub fn verify(
        &self,
        register: &VerifiedRegister,
        revocations: &Revocations,
        user_id: &str,
        now_ms: u64,
    ) -> CredentialStatus {
        // A key or organisation that an expired register does not know may stand in its successor.
        let unknown = |forgery| match register.check_current(now_ms) {
            Err(RegisterError::Expired { .. }) => CredentialStatus::Unverifiable,
            _ => CredentialStatus::Forged(forgery),
        };
        if self.user_id != user_id {
            return CredentialStatus::Forged(Forgery::OtherPerson);
        }
        let Some(organisation) = register.organisation(&self.organisation) else {
            return unknown(Forgery::UnknownOrganisation);
        };
        let server = names::server_of(user_id).unwrap_or_default();
        if !organisation.server_names.iter().any(|own| own == server) {
            return unknown(Forgery::OtherOrganisation);
        }
        let Some(key) = register.credential_key(&self.organisation, &self.key_id) else {
            return unknown(Forgery::UnknownKey);
        };
        if !self.payload().is_ok_and(|payload| keys::verify(key, &payload, &self.signature)) {
            return CredentialStatus::Forged(Forgery::BadSignature);
        }
        if let Some(revoked_at_ms) = revocations.revoked_at_ms(&self.organisation, &self.serial) {
            return CredentialStatus::Revoked { revoked_at_ms };
        }
        if self.checked_at_ms > now_ms.saturating_add(CLOCK_TOLERANCE_MS) {
            return CredentialStatus::Forged(Forgery::FromTheFuture);
        }
        if now_ms >= self.expires_at_ms {
            return CredentialStatus::Expired { expired_at_ms: self.expires_at_ms };
        }
        CredentialStatus::Valid { credential: Box::new(self.clone()) }
    }

    /// The state of whatever somebody shows as a credential.
    #[must_use]
    pub fn status_of(
        shown: Option<&Value>,
        register: Option<&VerifiedRegister>,
        revocations: &Revocations,
        user_id: &str,
        now_ms: u64,
    ) -> CredentialStatus {
        let Some(shown) = shown.filter(|value| !value.is_null()) else {
            return CredentialStatus::Missing;
        };
        let Ok(credential) = Self::from_value(shown) else {
            return CredentialStatus::Forged(Forgery::Unreadable);
        };
        match register {
            Some(register) => credential.verify(register, revocations, user_id, now_ms),
            None => CredentialStatus::Unverifiable,
        }
    }

    fn check_form(&self) -> Result<(), CredentialError> {
        if names::server_of(&self.user_id).is_none() {
            return Err(CredentialError::Malformed("user_id"));
        }
        let codes = [
            ("organisation", &self.organisation),
            ("profession", &self.profession),
            ("serial", &self.serial),
            ("key_id", &self.key_id),
        ];
        if let Some((field, _)) = codes.iter().find(|(_, code)| !names::is_code(code)) {
            return Err(CredentialError::Malformed(field));
        }
        if self.roles.len() > MAX_ROLES || !self.roles.iter().all(|role| names::is_code(role)) {
            return Err(CredentialError::Malformed("roles"));
        }
        if self.expires_at_ms <= self.checked_at_ms {
            return Err(CredentialError::NeverValid);
        }
        Ok(())
    }

    fn payload(&self) -> Result<Vec<u8>, CredentialError> {
        let mut value = serde_json::to_value(self).map_err(CredentialError::Unreadable)?;
        if let Value::Object(map) = &mut value {
            map.remove("signature");
        }
        canonical::to_bytes(&value).map_err(CredentialError::Corrupt)
    }
}

//! The federation register: which organisations there are, which servers are theirs, and by which keys they vouch.

mod consistency;
mod signed;
mod verified;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::canonical::CanonicalError;
use crate::keys::KeyError;

pub use signed::SignedRegister;
pub(crate) use verified::CLOCK_TOLERANCE_MS;
pub use verified::{VerifiedRegister, accept};

/// The value of `type` in a register document.
pub const REGISTER_TYPE: &str = "org.matron.register";
/// The largest register that is read, in bytes: 16 MiB.
pub const MAX_REGISTER_BYTES: usize = 16 * 1024 * 1024;
/// How many organisations a register may hold.
pub const MAX_ORGANISATIONS: usize = 20_000;
/// How many server names, keys, governance or service users one organisation may have, each.
pub const MAX_PER_ORGANISATION: usize = 256;
/// How many revocations a register may hold.
pub const MAX_REVOCATIONS: usize = 200_000;

/// The register's document, unsigned.
///
/// On disk and on the wire it is one JSON object: these fields, `"type": "org.matron.register"`, and `signatures`,
/// an object from `ed25519:<public key in base64>` to the signature in base64 over the canonical JSON of all the rest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Register {
    /// [`REGISTER_TYPE`]: so that no other signed document can pass for a register.
    #[serde(rename = "type", default)]
    pub kind: RegisterType,
    /// Rises with every change.
    pub version: u64,
    /// When it was made, in milliseconds since 1970.
    pub issued_at_ms: u64,
    /// Until when it holds, in milliseconds since 1970.
    pub expires_at_ms: u64,
    /// The name of the federation.
    pub federation: String,
    /// Its members.
    pub organisations: Vec<Organisation>,
    /// Credentials that were taken back.
    #[serde(default)]
    pub revocations: Vec<Revocation>,
}

/// The only type of a register.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum RegisterType {
    /// `org.matron.register`.
    #[default]
    #[serde(rename = "org.matron.register")]
    Register,
}

/// A member of the federation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Organisation {
    /// Short code, unique in the register: an ODS code, say.
    pub code: String,
    /// Name for people.
    pub name: String,
    /// Where it is: `GB-ENG`, `DE`.
    pub jurisdiction: String,
    /// Its Matrix servers. A server belongs to one organisation.
    pub server_names: Vec<String>,
    /// The keys with which it signs credentials and revocations: from key id to ed25519 public key in base64.
    pub credential_keys: BTreeMap<String, String>,
    /// The key with which its policy server signs events, ed25519 in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_server_key: Option<String>,
    /// User ids that govern rooms in its name: its governance bot.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub governance_users: Vec<String>,
    /// User ids of its machines; a `*` may end the local part: `@lab-*:trust.example`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub service_users: Vec<String>,
}

impl Organisation {
    /// The content of `m.room.policy` that makes this organisation's policy server sign the room's events; none if
    /// it has no policy server. `via` is the server that answers.
    #[must_use]
    pub fn policy_server_content(&self, via: &str) -> Option<serde_json::Value> {
        let key = self.policy_server_key.as_ref()?;
        Some(serde_json::json!({ "via": via, "public_keys": { "ed25519": key } }))
    }
}

/// A credential that was taken back.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revocation {
    /// Code of the organisation that had issued it.
    pub organisation: String,
    /// Its serial.
    pub serial: String,
    /// When it was taken back, in milliseconds since 1970.
    pub revoked_at_ms: u64,
}

/// Why a document is no register to go by.
#[derive(Debug, Error)]
pub enum RegisterError {
    /// Too long, or no strict JSON.
    #[error("the register is corrupt: {0}")]
    Corrupt(#[source] CanonicalError),
    /// JSON, but not `"type": "org.matron.register"`.
    #[error("the document is no register: its type is not {REGISTER_TYPE}")]
    NotARegister,
    /// A field is missing, unknown or of the wrong type.
    #[error("the register cannot be read: {0}")]
    Unreadable(#[source] serde_json::Error),
    /// No signature at all.
    #[error("the register is not signed")]
    Unsigned,
    /// Signed, but by none of the keys that this server trusts.
    #[error("the register is signed by none of the trusted keys; it names {named} other key(s)")]
    Foreign {
        /// How many keys signed it, by its own account.
        named: usize,
    },
    /// A trusted key is named, and its signature does not fit: the document was altered.
    #[error("the register was altered: the signature of {key_id} does not fit")]
    BadSignature {
        /// The key.
        key_id: String,
    },
    /// It has expired.
    #[error("the register expired at {expired_at_ms} ms since 1970")]
    Expired {
        /// When.
        expired_at_ms: u64,
    },
    /// It was made in the future.
    #[error("the register is issued in the future, at {issued_at_ms} ms since 1970; check this machine's clock")]
    NotYetValid {
        /// When.
        issued_at_ms: u64,
    },
    /// It expires before it was made.
    #[error("the register expires before it is issued")]
    NeverValid,
    /// It is older than the one in use.
    #[error("the register has version {offered}; version {current} is in use, and a register is never rolled back")]
    RolledBack {
        /// Version in use.
        current: u64,
        /// Version offered.
        offered: u64,
    },
    /// It has the version of the one in use and says something else.
    #[error("there are two different registers of version {version}")]
    Conflict {
        /// The version.
        version: u64,
    },
    /// Two organisations with one code.
    #[error("two organisations have the code {code}")]
    DuplicateCode {
        /// The code.
        code: String,
    },
    /// One server in two organisations, or twice in one.
    #[error("server {server} belongs to {first} and to {second}")]
    DuplicateServer {
        /// The server name.
        server: String,
        /// The organisation that named it first.
        first: String,
        /// The organisation that named it again.
        second: String,
    },
    /// A code, jurisdiction, serial or key id is empty, too long or has other characters than letters, digits, `._:/+-`.
    #[error("{what} of organisation number {position} is malformed")]
    MalformedCode {
        /// Which field.
        what: &'static str,
        /// Place in the list, from 1.
        position: usize,
    },
    /// A server name that none can have.
    #[error("organisation {organisation} has a malformed server name")]
    MalformedServerName {
        /// The organisation.
        organisation: String,
    },
    /// A key that is none.
    #[error("key {key_id} of organisation {organisation}: {source}")]
    MalformedKey {
        /// The organisation.
        organisation: String,
        /// The key's id.
        key_id: String,
        /// What is wrong.
        source: KeyError,
    },
    /// An organisation names a user of a server that is not its own.
    #[error("organisation {organisation} names a user of a server that is not its own")]
    ForeignUser {
        /// The organisation.
        organisation: String,
    },
    /// An organisation names all users of a server as its machines.
    #[error("organisation {organisation} names machines by a pattern that means nearly everybody")]
    BoundlessPattern {
        /// The organisation.
        organisation: String,
    },
    /// A revocation names an organisation that is not in the register, or a malformed serial.
    #[error("revocation number {position} names no organisation of the register, or a malformed serial")]
    MalformedRevocation {
        /// Place in the list, from 1.
        position: usize,
    },
    /// A list is longer than any sensible federation's.
    #[error("the register has too many {what}: {count}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many.
        count: usize,
    },
}

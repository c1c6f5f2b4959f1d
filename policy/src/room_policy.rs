//! `org.matron.room.policy`: the state event that makes a room clinical, and what it mirrors to.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use thiserror::Error;

use crate::credential::VerificationLevel;
use crate::layer::PolicyLayer;
use crate::names;
use crate::register::VerifiedRegister;

/// The type of the state event that carries a [`RoomPolicy`]; its state key is empty.
pub const ROOM_POLICY_TYPE: &str = "org.matron.room.policy";
/// The one algorithm that counts as end-to-end encryption of a room.
pub const MEGOLM: &str = "m.megolm.v1.aes-sha2";
/// How many organisations one room may name.
pub const MAX_ORGANISATIONS: usize = 256;
/// The longest time that a room key is used: one week, the specification's default.
const LONGEST_ROTATION_MS: u64 = 7 * 24 * 60 * 60 * 1000;

/// The content of [`ROOM_POLICY_TYPE`].
///
/// Bounded, verified, encrypted and ephemeral unless it says otherwise: a field left out takes its strict value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoomPolicy {
    /// Version of this form: 1.
    #[serde(default = "first_version")]
    pub version: u8,
    /// Codes of the organisations to which the room belongs. At least one.
    pub organisations: BTreeSet<String>,
    /// Whether joining and speaking need a current credential. Default true.
    #[serde(default = "yes")]
    pub credential_required: bool,
    /// Whether messages must be end-to-end encrypted. Default true.
    #[serde(default = "yes")]
    pub encryption_required: bool,
    /// Whether messages must have a lifetime. Default true.
    #[serde(default = "yes")]
    pub lifetime_required: bool,
    /// The longest lifetime of a message, in milliseconds, counted from the earlier of sending and receipt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_lifetime_ms: Option<u64>,
    /// The least that a member's credential must have verified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minimum_level: Option<VerificationLevel>,
    /// Professions that may join and speak.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub professions: Option<BTreeSet<String>>,
    /// Roles of which a member must hold at least one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub roles: Option<BTreeSet<String>>,
    /// The largest file, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_max_bytes: Option<u64>,
    /// Whether a member without a current credential may go on reading. Default: may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unverified_may_read: Option<bool>,
    /// The name of the template from which the room was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
}

/// Why content is no room policy.
#[derive(Debug, Error)]
pub enum RoomPolicyError {
    /// The content is a list or a single value.
    #[error("{ROOM_POLICY_TYPE} cannot be read: its content is not an object")]
    NotAnObject,
    /// A field is missing, unknown or of the wrong type.
    #[error("{ROOM_POLICY_TYPE} cannot be read: {0}")]
    Unreadable(#[source] serde_json::Error),
    /// The policy has a form from a later time.
    #[error("{ROOM_POLICY_TYPE} has version {0}; this server reads version 1")]
    UnknownVersion(u8),
    /// The policy names no organisation, or too many.
    #[error("{ROOM_POLICY_TYPE} must name 1 to {MAX_ORGANISATIONS} organisations; it names {0}")]
    OrganisationCount(usize),
    /// A code, profession or role is empty, too long or has other characters than letters, digits and `._:/+-`.
    #[error("{ROOM_POLICY_TYPE} holds a malformed name in {0}")]
    MalformedName(&'static str),
    /// A lifetime of nothing.
    #[error("{ROOM_POLICY_TYPE} must have a max_lifetime_ms of at least 1")]
    NoLifetime,
}

/// Why a policy cannot be mirrored.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MirrorError {
    /// The register does not know an organisation that the room names.
    #[error("organisation {0} is not in the register")]
    UnknownOrganisation(String),
}

/// What a room policy means in the words of other servers and clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// Content of `m.room.retention`; none if messages have no lifetime.
    pub retention: Option<Value>,
    /// Content of `m.room.server_acl`: the hosts of the organisations' servers, and nobody else.
    pub server_acl: Value,
    /// Content of `m.room.encryption`, with keys that live no longer than messages; none if not required.
    pub encryption: Option<Value>,
    /// `m.federate` of the create event: false if one server alone is meant.
    pub federate: bool,
}

impl RoomPolicy {
    /// A policy for a room of these organisations with every strict default.
    #[must_use]
    pub fn of_organisations<S: Into<String>>(codes: impl IntoIterator<Item = S>) -> Self {
        Self {
            version: 1,
            organisations: codes.into_iter().map(Into::into).collect(),
            credential_required: true,
            encryption_required: true,
            lifetime_required: true,
            max_lifetime_ms: None,
            minimum_level: None,
            professions: None,
            roles: None,
            media_max_bytes: None,
            unverified_may_read: None,
            template: None,
        }
    }

    /// The same policy with this lifetime of messages, in milliseconds.
    #[must_use]
    pub fn with_max_lifetime_ms(mut self, max_lifetime_ms: u64) -> Self {
        self.max_lifetime_ms = Some(max_lifetime_ms);
        self
    }

    /// The policy that the content of a state event holds.
    ///
    /// # Errors
    /// A [`RoomPolicyError`] that names the fault. A room whose policy cannot be read is no ordinary room.
    pub fn parse(content: &Value) -> Result<Self, RoomPolicyError> {
        // A derived reader also takes a list of the fields' values; there is one form only.
        if !content.is_object() {
            return Err(RoomPolicyError::NotAnObject);
        }
        let policy = Self::deserialize(content).map_err(RoomPolicyError::Unreadable)?;
        policy.check()?;
        Ok(policy)
    }

    /// Whether the values make sense together.
    ///
    /// # Errors
    /// A [`RoomPolicyError`] that names the first fault.
    pub fn check(&self) -> Result<(), RoomPolicyError> {
        if self.version != 1 {
            return Err(RoomPolicyError::UnknownVersion(self.version));
        }
        if !(1..=MAX_ORGANISATIONS).contains(&self.organisations.len()) {
            return Err(RoomPolicyError::OrganisationCount(self.organisations.len()));
        }
        let sound = |set: &BTreeSet<String>| set.iter().all(|code| names::is_code(code));
        if !sound(&self.organisations) {
            return Err(RoomPolicyError::MalformedName("organisations"));
        }
        if !self.professions.as_ref().is_none_or(sound) {
            return Err(RoomPolicyError::MalformedName("professions"));
        }
        if !self.roles.as_ref().is_none_or(sound) {
            return Err(RoomPolicyError::MalformedName("roles"));
        }
        if !self.template.as_deref().is_none_or(names::is_code) {
            return Err(RoomPolicyError::MalformedName("template"));
        }
        if self.max_lifetime_ms == Some(0) {
            return Err(RoomPolicyError::NoLifetime);
        }
        Ok(())
    }

    /// The content of the state event.
    #[must_use]
    pub fn to_content(&self) -> Value {
        serde_json::to_value(self).unwrap_or(Value::Null)
    }

    /// The room's layer of policy.
    #[must_use]
    pub fn layer(&self) -> PolicyLayer {
        PolicyLayer {
            organisations: Some(self.organisations.clone()),
            credential_required: Some(self.credential_required),
            minimum_level: self.minimum_level,
            professions: self.professions.clone(),
            roles: self.roles.clone(),
            encryption_required: Some(self.encryption_required),
            lifetime_required: Some(self.lifetime_required),
            max_lifetime_ms: self.max_lifetime_ms,
            media_max_bytes: self.media_max_bytes,
            unverified_may_read: self.unverified_may_read,
            ..PolicyLayer::default()
        }
    }

    /// What the policy means in the words of servers and clients that know nothing of it.
    ///
    /// # Errors
    /// [`MirrorError::UnknownOrganisation`] if the register does not know an organisation of the room.
    pub fn mirror(&self, register: &VerifiedRegister) -> Result<Mirror, MirrorError> {
        let mut servers = BTreeSet::new();
        for code in &self.organisations {
            let organisation =
                register.organisation(code).ok_or_else(|| MirrorError::UnknownOrganisation(code.clone()))?;
            servers.extend(organisation.server_names.iter().map(String::as_str));
        }
        // SPEC: v1.18 client-server API, m.room.server_acl: names are matched without their port.
        let hosts: BTreeSet<&str> = servers.iter().map(|name| names::host_of(name)).collect();
        let allow_ip_literals = hosts.iter().any(|host| names::is_ip_literal(host));
        let rotation_period_ms = self.max_lifetime_ms.unwrap_or(u64::MAX).min(LONGEST_ROTATION_MS);
        Ok(Mirror {
            retention: self.max_lifetime_ms.map(|ms| json!({ "max_lifetime": ms })),
            server_acl: json!({ "allow": hosts, "deny": [], "allow_ip_literals": allow_ip_literals }),
            encryption: self
                .encryption_required
                .then(|| json!({ "algorithm": MEGOLM, "rotation_period_ms": rotation_period_ms })),
            federate: servers.len() > 1,
        })
    }
}

fn first_version() -> u8 {
    1
}

fn yes() -> bool {
    true
}

//! One layer of policy, and the strict meet that joins layers.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::credential::VerificationLevel;
use crate::names;

/// What one authority demands: the federation's floor, an organisation, a room template or a room.
///
/// Every field may be left out: the layer then has no opinion on it. Layers are joined by [`PolicyLayer::meet`],
/// which takes the stricter value of every field, so no layer can loosen what another demands.
/// Unknown fields are refused, because a limit that is not understood would not be kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PolicyLayer {
    /// Codes of the organisations whose people may be here. Stricter: the intersection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub organisations: Option<BTreeSet<String>>,
    /// Jurisdictions in which the organisations may be. Stricter: the intersection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jurisdictions: Option<BTreeSet<String>>,
    /// Whether joining and speaking need a current credential. Stricter: true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credential_required: Option<bool>,
    /// The least that a credential must have verified. Stricter: the higher.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub minimum_level: Option<VerificationLevel>,
    /// Professions that may join and speak. Stricter: the intersection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub professions: Option<BTreeSet<String>>,
    /// Roles of which a credential must hold at least one. Stricter: the intersection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub roles: Option<BTreeSet<String>>,
    /// How long ago, in milliseconds, a credential may have been checked. Stricter: the shorter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credential_max_age_ms: Option<u64>,
    /// Whether messages must be end-to-end encrypted. Stricter: true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encryption_required: Option<bool>,
    /// Whether messages must have a lifetime. Stricter: true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lifetime_required: Option<bool>,
    /// The longest lifetime of a message, in milliseconds. Stricter: the shorter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_lifetime_ms: Option<u64>,
    /// Whether only an organisation's governance bot may create rooms. Stricter: true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub governance_creates_rooms: Option<bool>,
    /// Whether rooms may reach other servers. Stricter: false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub federate: Option<bool>,
    /// The largest file that may be uploaded, in bytes. Stricter: the smaller.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub media_max_bytes: Option<u64>,
    /// How long, in milliseconds, a server may keep the content of a redacted message. Stricter: the shorter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redacted_content_kept_ms: Option<u64>,
    /// Whether a member without a current credential may go on reading. Stricter: false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unverified_may_read: Option<bool>,
}

/// Why a deployment should not go by a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum LayerError {
    /// A lifetime of nothing.
    #[error("max_lifetime_ms must be at least 1")]
    NoLifetime,
    /// An empty list would let nobody in.
    #[error("{0} is empty, which would let nobody in; leave it out to allow all")]
    Nobody(&'static str),
    /// A name that none can have.
    #[error("{0} holds a name that is empty, too long or has other characters than letters, digits and ._:/+-")]
    MalformedName(&'static str),
}

impl PolicyLayer {
    /// The weakest layer that is at least as strict as both: associative, commutative and idempotent.
    #[must_use]
    pub fn meet(&self, other: &Self) -> Self {
        Self {
            organisations: meet(&self.organisations, &other.organisations, both),
            jurisdictions: meet(&self.jurisdictions, &other.jurisdictions, both),
            credential_required: meet(&self.credential_required, &other.credential_required, either),
            minimum_level: meet(&self.minimum_level, &other.minimum_level, |a, b| *a.max(b)),
            professions: meet(&self.professions, &other.professions, both),
            roles: meet(&self.roles, &other.roles, both),
            credential_max_age_ms: meet(&self.credential_max_age_ms, &other.credential_max_age_ms, smaller),
            encryption_required: meet(&self.encryption_required, &other.encryption_required, either),
            lifetime_required: meet(&self.lifetime_required, &other.lifetime_required, either),
            max_lifetime_ms: meet(&self.max_lifetime_ms, &other.max_lifetime_ms, smaller),
            governance_creates_rooms: meet(&self.governance_creates_rooms, &other.governance_creates_rooms, either),
            federate: meet(&self.federate, &other.federate, |a, b| *a && *b),
            media_max_bytes: meet(&self.media_max_bytes, &other.media_max_bytes, smaller),
            redacted_content_kept_ms: meet(&self.redacted_content_kept_ms, &other.redacted_content_kept_ms, smaller),
            unverified_may_read: meet(&self.unverified_may_read, &other.unverified_may_read, |a, b| *a && *b),
        }
    }

    /// Whether this layer demands at least all that `other` demands.
    #[must_use]
    pub fn is_at_least_as_strict_as(&self, other: &Self) -> bool {
        self.meet(other) == *self
    }

    /// Whether a deployment may go by this layer.
    ///
    /// # Errors
    /// [`LayerError`], for values that nobody can have meant.
    pub fn check(&self) -> Result<(), LayerError> {
        if self.max_lifetime_ms == Some(0) {
            return Err(LayerError::NoLifetime);
        }
        let named = [
            ("organisations", &self.organisations),
            ("jurisdictions", &self.jurisdictions),
            ("professions", &self.professions),
            ("roles", &self.roles),
        ];
        for (field, set) in named {
            match set {
                Some(set) if set.is_empty() => return Err(LayerError::Nobody(field)),
                Some(set) if !set.iter().all(|name| names::is_code(name)) => {
                    return Err(LayerError::MalformedName(field));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether the layer has no opinion on anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

fn meet<T: Clone>(a: &Option<T>, b: &Option<T>, stricter: impl FnOnce(&T, &T) -> T) -> Option<T> {
    match (a, b) {
        (Some(a), Some(b)) => Some(stricter(a, b)),
        (Some(one), None) | (None, Some(one)) => Some(one.clone()),
        (None, None) => None,
    }
}

fn both(a: &BTreeSet<String>, b: &BTreeSet<String>) -> BTreeSet<String> {
    a & b
}

fn either(a: &bool, b: &bool) -> bool {
    *a || *b
}

fn smaller(a: &u64, b: &u64) -> u64 {
    *a.min(b)
}

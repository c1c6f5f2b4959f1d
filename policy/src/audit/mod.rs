//! The audit log: what was decided and what was done, in a chain that cannot be altered unseen.

mod chain;
mod decision_id;

use serde::{Deserialize, Serialize};

use crate::names::MAX_ID_BYTES;
use crate::request::{PrincipalKind, Request, Resource};
use crate::revision::{Digest, PolicyRevision};
use crate::verdict::{Outcome, Reason, ReasonCode, Verdict};

pub use chain::{BrokenChain, BrokenLink, ChainHead, append, verify_chain, verify_chain_from};
pub use decision_id::{DecisionId, DecisionIdError};

/// One line of the log. Its canonical JSON is what storage keeps and what the chain hashes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditEntry {
    /// Place in the log, from 0, without gaps.
    pub seq: u64,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// The name by which people ask for it.
    pub decision_id: DecisionId,
    /// What was decided or done.
    pub kind: AuditKind,
    /// The effective policy at the time; none where no policy was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<PolicyRevision>,
    /// Hash of the entry before; [`Digest::ZERO`] for the first.
    pub prev_hash: Digest,
    /// SHA-256 of the canonical JSON of all other fields.
    pub hash: Digest,
}

/// An entry that has no place in the log yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditDraft {
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// The name by which people will ask for it.
    pub decision_id: DecisionId,
    /// What was decided or done.
    pub kind: AuditKind,
    /// The effective policy, if one was asked.
    pub revision: Option<PolicyRevision>,
}

/// What was decided or done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum AuditKind {
    /// Policy answered a request.
    Decision {
        /// The request, without content.
        request: RequestSummary,
        /// Digest of the whole request.
        request_digest: Digest,
        /// The answer.
        outcome: Outcome,
        /// Why.
        reasons: Vec<Reason>,
    },
    /// Messages whose time had come were destroyed.
    Deletion {
        /// The room.
        room_id: String,
        /// How many events.
        events: u64,
        /// How many files.
        media: u64,
        /// All that expired up to this time, in milliseconds since 1970.
        up_to_ms: u64,
        /// Whether the data key that could open copies of them was destroyed too.
        key_destroyed: bool,
    },
    /// Somebody was removed from a room because facts changed.
    Eviction {
        /// The room.
        room_id: String,
        /// The removed.
        user_id: String,
        /// Why.
        code: ReasonCode,
    },
    /// A credential was taken back.
    Revocation {
        /// The organisation that had issued it.
        organisation: String,
        /// Its serial.
        serial: String,
    },
    /// A register came into use.
    RegisterAccepted {
        /// Its version.
        version: u64,
        /// Its digest.
        digest: Digest,
    },
    /// A policy came into use.
    PolicyChanged {
        /// The room, or none for the deployment.
        room_id: Option<String>,
        /// Revision before.
        from: Option<PolicyRevision>,
        /// Revision after.
        to: PolicyRevision,
        /// Who changed it.
        changed_by: String,
    },
    /// An operator did something by command.
    OperatorAct {
        /// The operator, as the system names them.
        operator: String,
        /// What: a word or two.
        act: String,
        /// To whom or what.
        target: Option<String>,
    },
}

/// A request as the log keeps it: who, what, where; never content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestSummary {
    /// User id of the asker.
    pub user_id: String,
    /// What kind of party.
    pub principal: PrincipalKind,
    /// [`crate::Action::name`] of the act itself.
    pub action: String,
    /// Whether it came from another server.
    pub federated: bool,
    /// Type of the event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_type: Option<String>,
    /// The other person concerned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// The room; none for the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub room_id: Option<String>,
}

impl RequestSummary {
    /// What the log keeps of a request. Overlong and unprintable ids are cut and cleaned.
    #[must_use]
    pub fn of(request: &Request) -> Self {
        let room_id = match &request.resource {
            Resource::Room(room_id) => Some(printable(room_id)),
            Resource::Server => None,
        };
        Self {
            user_id: printable(&request.principal.user_id),
            principal: request.principal.kind,
            action: request.action.essence().name().to_owned(),
            federated: request.action.is_federated(),
            event_type: request.action.event_type().map(printable),
            target: request.action.target().map(printable),
            room_id,
        }
    }
}

impl AuditDraft {
    /// The entry of a decision.
    #[must_use]
    pub fn decision(request: &Request, verdict: &Verdict, at_ms: u64, decision_id: DecisionId) -> Self {
        let kind = AuditKind::Decision {
            request: RequestSummary::of(request),
            request_digest: verdict.request_digest(),
            outcome: verdict.outcome().clone(),
            reasons: verdict.reasons().to_vec(),
        };
        Self { at_ms, decision_id, kind, revision: Some(verdict.revision()) }
    }

    /// The entry of something that was done.
    #[must_use]
    pub fn act(kind: AuditKind, at_ms: u64, decision_id: DecisionId) -> Self {
        Self { at_ms, decision_id, kind, revision: None }
    }
}

fn printable(text: &str) -> String {
    let mut out = String::new();
    for character in text.chars() {
        let shown = if character.is_control() { '\u{fffd}' } else { character };
        if out.len() + shown.len_utf8() > MAX_ID_BYTES {
            break;
        }
        out.push(shown);
    }
    out
}

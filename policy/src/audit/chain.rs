//! The hash chain: every entry holds the hash of the one before.

use std::borrow::Borrow;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{AuditDraft, AuditEntry, AuditKind, DecisionId};
use crate::canonical::{self, CanonicalError};
use crate::revision::{Digest, PolicyRevision};

/// Where the chain stands: what the next entry builds upon. Told to an outsider, it also shows a log cut short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChainHead {
    /// Number of entries, and `seq` of the next.
    pub next_seq: u64,
    /// Hash of the last entry.
    pub hash: Digest,
}

/// The log was altered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the audit log is broken at entry {seq}: {what}")]
pub struct BrokenChain {
    /// The first entry that does not fit, by its place in the log.
    pub seq: u64,
    /// How it does not fit.
    pub what: BrokenLink,
}

/// How an entry does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BrokenLink {
    /// It says that it stands elsewhere: an entry is missing, twice there or out of order.
    #[error("it says that it is number {found}")]
    WrongPlace {
        /// What it says.
        found: u64,
    },
    /// It does not hold the hash of the one before: that one was replaced.
    #[error("it does not follow from the entry before")]
    Unlinked,
    /// It cannot be read.
    #[error("it cannot be read")]
    Unreadable,
    /// Its own hash does not fit: it was altered.
    #[error("it was altered")]
    Altered,
}

impl ChainHead {
    /// The head of an empty log.
    pub const GENESIS: Self = Self { next_seq: 0, hash: Digest::ZERO };
}

impl Default for ChainHead {
    fn default() -> Self {
        Self::GENESIS
    }
}

impl AuditEntry {
    /// Where the chain stands after this entry.
    #[must_use]
    pub fn head(&self) -> ChainHead {
        ChainHead { next_seq: self.seq.saturating_add(1), hash: self.hash }
    }

    /// The entry's canonical bytes, for storage.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        canonical::naming(self)
    }

    /// The entry that the bytes from storage hold. Its place in the chain is for [`verify_chain_from`] to check.
    ///
    /// # Errors
    /// [`CanonicalError`] if they hold none; in a log that is [`BrokenLink::Unreadable`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CanonicalError> {
        serde_json::from_slice(bytes).map_err(CanonicalError::NotJson)
    }

    fn computed_hash(&self) -> Digest {
        Digest::of(&canonical::naming(&Hashed {
            seq: self.seq,
            at_ms: self.at_ms,
            decision_id: self.decision_id,
            kind: &self.kind,
            revision: self.revision,
            prev_hash: self.prev_hash,
        }))
    }
}

/// INVARIANT: all fields of [`AuditEntry`] but `hash`, under the same names.
#[derive(Serialize)]
struct Hashed<'a> {
    seq: u64,
    at_ms: u64,
    decision_id: DecisionId,
    kind: &'a AuditKind,
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<PolicyRevision>,
    prev_hash: Digest,
}

/// The entry that follows upon `head`. The log's next head is [`AuditEntry::head`].
#[must_use]
pub fn append(head: &ChainHead, draft: AuditDraft) -> AuditEntry {
    let mut entry = AuditEntry {
        seq: head.next_seq,
        at_ms: draft.at_ms,
        decision_id: draft.decision_id,
        kind: draft.kind,
        revision: draft.revision,
        prev_hash: head.hash,
        hash: Digest::ZERO,
    };
    entry.hash = entry.computed_hash();
    entry
}

/// The head of a whole log, if nothing in it was altered. Compare it with a head kept elsewhere to see whether the
/// end was cut off.
///
/// # Errors
/// The first entry that does not fit.
pub fn verify_chain<E: Borrow<AuditEntry>>(entries: impl IntoIterator<Item = E>) -> Result<ChainHead, BrokenChain> {
    verify_chain_from(ChainHead::GENESIS, entries)
}

/// The head after these entries, if they follow upon `head` and nothing in them was altered: for a log read by pages.
///
/// # Errors
/// The first entry that does not fit.
pub fn verify_chain_from<E: Borrow<AuditEntry>>(
    head: ChainHead,
    entries: impl IntoIterator<Item = E>,
) -> Result<ChainHead, BrokenChain> {
    let mut head = head;
    for entry in entries {
        let entry = entry.borrow();
        let broken = |what| BrokenChain { seq: head.next_seq, what };
        if entry.seq != head.next_seq {
            return Err(broken(BrokenLink::WrongPlace { found: entry.seq }));
        }
        if entry.prev_hash != head.hash {
            return Err(broken(BrokenLink::Unlinked));
        }
        if entry.computed_hash() != entry.hash {
            return Err(broken(BrokenLink::Altered));
        }
        head = entry.head();
    }
    Ok(head)
}

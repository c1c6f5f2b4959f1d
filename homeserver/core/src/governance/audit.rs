//! Reading the audit log.

use matron_policy::{
    AuditEntry, AuditKind, BrokenChain, BrokenLink, ChainHead, DecisionId, explain, verify_chain_from,
};
use matron_storage::{Key, KeyRange, Order, Table};

use super::log::read_entry;
use crate::{Core, Error};

/// The most entries that are read at once.
pub(super) const MAX_PAGE: usize = 1000;

/// A decision in plain words.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Explanation {
    /// Its id.
    pub decision_id: String,
    /// The room it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub room_id: Option<String>,
    /// When it was taken, ms since the epoch.
    pub at_ms: u64,
    /// What was decided, and why; no message content.
    pub explanation: String,
}

/// What became of a check of the whole log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuditCheck {
    /// Nothing was altered; compare the head with one that was written down elsewhere.
    Whole(ChainHead),
    /// The log was altered.
    Broken(BrokenChain),
}

impl Core {
    /// The decision in plain words; `None` if the log has none of this id.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn explain(&self, decision_id: &str) -> Result<Option<Explanation>, Error> {
        let Ok(id) = decision_id.parse::<DecisionId>() else { return Ok(None) };
        let Some(entry) = self.audit_entry_of(id)? else { return Ok(None) };
        let room_id = match &entry.kind {
            AuditKind::Decision { request, .. } => request.room_id.clone(),
            AuditKind::Deletion { room_id, .. } | AuditKind::Eviction { room_id, .. } => Some(room_id.clone()),
            AuditKind::PolicyChanged { room_id, .. } => room_id.clone(),
            AuditKind::Revocation { .. } | AuditKind::RegisterAccepted { .. } | AuditKind::OperatorAct { .. } => None,
        };
        Ok(Some(Explanation { decision_id: id.to_string(), room_id, at_ms: entry.at_ms, explanation: explain(&entry) }))
    }

    /// The entry of a decision.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn audit_entry_of(&self, id: DecisionId) -> Result<Option<AuditEntry>, Error> {
        let row = Key::new().number(id.as_u64());
        let Some(seq) = self.store.get(Table::AuditDecision, row.as_bytes())? else { return Ok(None) };
        self.store.get(Table::AuditEntry, &seq)?.map(|bytes| read_entry(&bytes)).transpose()
    }

    /// At most `limit` (and at most [`MAX_PAGE`]) entries, from place `from` on.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn audit_entries(&self, from: u64, limit: usize) -> Result<Vec<AuditEntry>, Error> {
        let range = KeyRange { start: Key::new().number(from).into(), end: None };
        let rows = self.store.scan(Table::AuditEntry, &range, Order::Ascending, limit.min(MAX_PAGE))?;
        rows.iter().map(|(_, bytes)| read_entry(bytes)).collect()
    }

    /// Whether the whole log is as it was written. Reads all of it: not on a runtime's thread.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn verify_audit(&self) -> Result<AuditCheck, Error> {
        let mut head = ChainHead::GENESIS;
        let mut range = KeyRange::all();
        loop {
            let rows = self.store.scan(Table::AuditEntry, &range, Order::Ascending, MAX_PAGE)?;
            let Some((last, _)) = rows.last() else { break };
            range = range.after(last);
            let mut entries = Vec::with_capacity(rows.len());
            for (index, (_, bytes)) in rows.iter().enumerate() {
                match AuditEntry::from_bytes(bytes) {
                    Ok(entry) => entries.push(entry),
                    Err(_) => {
                        let seq = head.next_seq.saturating_add(u64::try_from(index).unwrap_or(u64::MAX));
                        return Ok(AuditCheck::Broken(BrokenChain { seq, what: BrokenLink::Unreadable }));
                    }
                }
            }
            match verify_chain_from(head, &entries) {
                Ok(next) => head = next,
                Err(broken) => return Ok(AuditCheck::Broken(broken)),
            }
        }
        Ok(AuditCheck::Whole(head))
    }
}

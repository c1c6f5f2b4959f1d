//! The audit log: one chain of hashes over everything that was decided or done.
//!
//! Whoever writes an entry holds the end of the chain from drafting until its batch was submitted, and each batch
//! expects the end that the one before wrote. So the chain has no gap, also when a batch fails or another process writes.

use std::sync::Arc;

use matron_policy::{AuditDraft, AuditEntry, AuditKind, ChainHead, DecisionId, append};
use matron_storage::{Batch, CommitError, Key, Store, Table};
use parking_lot::{Mutex, MutexGuard};

use crate::{
    Core, Error,
    house::{from_json, to_json},
};

/// How often an entry is drafted anew when another writer was first.
const TRIES: usize = 16;

/// The end of the chain.
#[derive(Debug, Default)]
pub(crate) struct AuditLog {
    head: Mutex<ChainHead>,
}

/// Entries that are in a batch; the end of the chain is held until the batch was submitted.
#[derive(Debug)]
pub(crate) struct Written<'a> {
    held: MutexGuard<'a, ChainHead>,
    next: ChainHead,
}

impl Written<'_> {
    /// The batch is on its way: the next entry follows these.
    pub(crate) fn submitted(mut self) {
        *self.held = self.next;
    }
}

fn head_key() -> Key {
    Key::new().text("audit").text("head")
}

impl AuditLog {
    /// The end of the chain is where the store says.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(crate) fn resume(&self, store: &dyn Store) -> Result<ChainHead, Error> {
        let mut held = self.head.lock();
        *held = match store.get(Table::Misc, head_key().as_bytes())? {
            Some(bytes) => from_json(Table::Misc, &bytes)?,
            None => ChainHead::GENESIS,
        };
        Ok(*held)
    }

    /// Adds the entries to the batch.
    ///
    /// # Errors
    /// [`Error::Internal`], never in practice.
    pub(crate) fn write<'a>(&'a self, batch: &mut Batch, drafts: Vec<AuditDraft>) -> Result<Written<'a>, Error> {
        let held = self.head.lock();
        let mut next = *held;
        if held.next_seq == 0 {
            batch.expect_absent(Table::Misc, head_key());
        } else {
            batch.expect_equals(Table::Misc, head_key(), to_json(&*held)?);
        }
        for draft in drafts {
            let entry = append(&next, draft);
            next = entry.head();
            batch.put(Table::AuditEntry, Key::new().number(entry.seq), entry.to_bytes());
            let decision = Key::new().number(entry.decision_id.as_u64());
            batch.put(Table::AuditDecision, decision, entry.seq.to_be_bytes());
        }
        batch.put(Table::Misc, head_key(), to_json(&next)?);
        Ok(Written { held, next })
    }

    /// The entries, and what else is in the batch, are durable.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(crate) async fn commit(&self, store: &dyn Store, with: &Batch, drafts: Vec<AuditDraft>) -> Result<(), Error> {
        for _ in 0..TRIES {
            let pending = {
                let mut batch = with.clone();
                let written = self.write(&mut batch, drafts.clone())?;
                let pending = store.submit(batch);
                written.submitted();
                pending
            };
            match pending.await {
                Ok(_) => return Ok(()),
                Err(CommitError::Conflict(_)) => {
                    self.resume(store)?;
                }
                Err(error) => {
                    self.resume(store)?;
                    return Err(error.into());
                }
            }
        }
        Err(Error::internal("the audit log has too many writers"))
    }
}

impl AuditLog {
    /// As [`AuditLog::commit`], without a runtime: at the start.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(crate) fn commit_now(&self, store: &dyn Store, with: &Batch, drafts: &[AuditDraft]) -> Result<(), Error> {
        let mut batch = with.clone();
        let written = self.write(&mut batch, drafts.to_vec())?;
        let pending = store.submit(batch);
        written.submitted();
        pending.wait().map(drop).map_err(Error::from)
    }
}

/// A refusal that is not in the log yet.
#[derive(Debug)]
pub(crate) struct Unrecorded {
    log: Arc<AuditLog>,
    store: Arc<dyn Store>,
    draft: AuditDraft,
}

impl Unrecorded {
    pub(crate) async fn record(self) -> Result<(), Error> {
        self.log.commit(&*self.store, &Batch::new(), vec![self.draft]).await
    }
}

impl Core {
    /// A new name for a decision.
    pub(crate) fn new_decision_id(&self) -> DecisionId {
        DecisionId::from_random(rand::random())
    }

    /// The draft of something that was done.
    pub(crate) fn audit_act(&self, kind: AuditKind) -> AuditDraft {
        AuditDraft::act(kind, self.now_ms(), self.new_decision_id())
    }

    /// What was done is in the log, together with the batch.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(crate) async fn commit_audited(&self, with: &Batch, drafts: Vec<AuditDraft>) -> Result<(), Error> {
        self.governance.log.commit(&*self.store, with, drafts).await
    }

    pub(crate) fn unrecorded(&self, draft: AuditDraft) -> Unrecorded {
        Unrecorded { log: Arc::clone(&self.governance.log), store: Arc::clone(&self.store), draft }
    }

    /// Another writer was first: what memory holds of the audit log's end may be ahead of the store.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(crate) fn resume_after_conflict(&self) -> Result<(), Error> {
        self.governance.log.resume(&*self.store).map(drop)
    }
}

/// The entry in a row of `audit_entry`.
pub(super) fn read_entry(bytes: &[u8]) -> Result<AuditEntry, Error> {
    AuditEntry::from_bytes(bytes)
        .map_err(|error| Error::Store(matron_storage::StoreError::Corrupt(format!("audit_entry: {error}"))))
}

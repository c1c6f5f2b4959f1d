//! Messages that were accepted and not delivered yet, on disk; and which ones were, so that none is sent twice.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::store::{Store, StoreError};

/// How many delivered messages are remembered, so that a repeated one is known.
const MAX_DONE: usize = 5_000;

/// Why a message could not be spooled.
#[derive(Debug, Error)]
pub enum SpoolError {
    /// As many messages wait as may.
    #[error("the spool is full")]
    Full,
    /// Another message with the same control id was accepted before.
    #[error("the control id was used for another message")]
    Reused,
    /// The disk.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// One accepted message. No `Debug`: it is about a patient.
#[derive(Clone, Serialize, Deserialize)]
struct Entry {
    /// Sender and control id, hashed.
    key: String,
    /// Hash of the bytes.
    hash: String,
    /// The bytes; `None` once delivered.
    message: Option<String>,
    room_id: String,
}

/// A message that waits for delivery.
#[derive(Clone)]
pub struct Waiting {
    /// Its place in the queue.
    pub seq: u64,
    /// The room that it was accepted for.
    pub room_id: String,
    /// As it came.
    pub message: Zeroizing<Vec<u8>>,
    /// The same after every restart.
    pub txn_id: String,
}

impl std::fmt::Debug for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Waiting").field("seq", &self.seq).finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct Index {
    next: u64,
    /// By sequence number: key, and whether it waits.
    entries: BTreeMap<u64, (String, bool)>,
    /// Hash by key.
    known: HashMap<String, String>,
    waiting: usize,
    done: usize,
}

/// The spool of one feed. Blocking: call it from a blocking task.
#[derive(Debug)]
pub struct Spool {
    store: Store,
    directory: String,
    max_waiting: usize,
    index: Mutex<Index>,
}

impl Spool {
    /// The spool as it lies on disk.
    ///
    /// # Errors
    /// [`SpoolError::Store`]; a corrupt entry is named and nothing is removed.
    pub fn open(store: Store, feed: &str, max_waiting: usize) -> Result<Self, SpoolError> {
        let directory = format!("spool/{feed}");
        let mut index = Index::default();
        for name in store.list(&directory)? {
            let corrupt = || StoreError::Sealed(name.clone());
            let seq: u64 = name.rsplit('/').next().and_then(|n| n.parse().ok()).ok_or_else(corrupt)?;
            let Some(content) = store.load(&name)? else {
                continue;
            };
            let entry: Entry = serde_json::from_slice(&content).map_err(|_bad| corrupt())?;
            index.next = index.next.max(seq + 1);
            index.insert(seq, &entry);
        }
        Ok(Self { store, directory, max_waiting, index: Mutex::new(index) })
    }

    fn name(&self, seq: u64) -> String {
        format!("{}/{seq:020}", self.directory)
    }

    /// The message is on disk afterwards, once. `Ok(false)` where it was there already.
    ///
    /// # Errors
    /// [`SpoolError`]; nothing is kept then.
    pub fn accept(&self, sender: &str, bytes: &[u8], room_id: &str) -> Result<bool, SpoolError> {
        let entry = Entry {
            key: hash(sender.as_bytes()),
            hash: hash(bytes),
            message: Some(STANDARD.encode(bytes)),
            room_id: room_id.to_owned(),
        };
        // Held across the write: two copies of one message must not both find themselves new.
        let mut index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        match index.known.get(&entry.key) {
            Some(known) if *known == entry.hash => return Ok(false),
            Some(_) => return Err(SpoolError::Reused),
            None => {}
        }
        if index.waiting >= self.max_waiting {
            return Err(SpoolError::Full);
        }
        let seq = index.next;
        self.write(seq, &entry)?;
        index.next += 1;
        index.insert(seq, &entry);
        Ok(true)
    }

    fn write(&self, seq: u64, entry: &Entry) -> Result<(), StoreError> {
        let name = self.name(seq);
        let content = serde_json::to_vec(entry).map_err(|_never| StoreError::Sealed(name.clone()))?;
        self.store.write(&name, &Zeroizing::new(content))
    }

    /// Sequence numbers of what waits, oldest first.
    #[must_use]
    pub fn waiting(&self) -> Vec<u64> {
        let index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        index.entries.iter().filter(|(_, (_, waits))| *waits).map(|(seq, _)| *seq).collect()
    }

    /// One waiting message, or `None` where it was delivered meanwhile.
    ///
    /// # Errors
    /// [`SpoolError::Store`].
    pub fn load(&self, seq: u64) -> Result<Option<Waiting>, SpoolError> {
        let name = self.name(seq);
        let corrupt = || StoreError::Sealed(name.clone());
        let Some(content) = self.store.load(&name)? else {
            return Ok(None);
        };
        let entry: Entry = serde_json::from_slice(&content).map_err(|_bad| corrupt())?;
        let Some(message) = entry.message else {
            return Ok(None);
        };
        let message = Zeroizing::new(STANDARD.decode(message).map_err(|_bad| corrupt())?);
        let txn_id = format!("hl7.{}", hash(format!("{}{}", entry.key, entry.hash).as_bytes()));
        Ok(Some(Waiting { seq, room_id: entry.room_id, message, txn_id }))
    }

    /// The message was delivered: its content is gone from disk, its key is remembered a while.
    ///
    /// # Errors
    /// [`SpoolError::Store`]; it still waits then, and delivering it again changes nothing in the room.
    pub fn finish(&self, seq: u64) -> Result<(), SpoolError> {
        let name = self.name(seq);
        let Some(content) = self.store.load(&name)? else {
            return Ok(());
        };
        let mut entry: Entry = serde_json::from_slice(&content).map_err(|_bad| StoreError::Sealed(name.clone()))?;
        entry.message = None;
        let mut index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        self.write(seq, &entry)?;
        index.remove(seq);
        index.insert(seq, &entry);
        while index.done > MAX_DONE {
            let Some(oldest) = index.oldest_done() else {
                break;
            };
            self.store.remove(&self.name(oldest))?;
            index.remove(oldest);
        }
        Ok(())
    }
}

impl Index {
    fn insert(&mut self, seq: u64, entry: &Entry) {
        let waits = entry.message.is_some();
        *(if waits { &mut self.waiting } else { &mut self.done }) += 1;
        self.entries.insert(seq, (entry.key.clone(), waits));
        self.known.insert(entry.key.clone(), entry.hash.clone());
    }

    fn remove(&mut self, seq: u64) {
        if let Some((key, waits)) = self.entries.remove(&seq) {
            let count = if waits { &mut self.waiting } else { &mut self.done };
            *count = count.saturating_sub(1);
            self.known.remove(&key);
        }
    }

    fn oldest_done(&self) -> Option<u64> {
        self.entries.iter().find(|(_, (_, waits))| !waits).map(|(seq, _)| *seq)
    }
}

fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(root: &std::path::Path, max_waiting: usize) -> Spool {
        let store = Store::open(root, &mut rand::rng()).unwrap();
        Spool::open(store, "p", max_waiting).unwrap()
    }

    #[test]
    fn what_was_accepted_waits_after_a_restart_with_the_same_transaction_id() {
        let root = tempfile::tempdir().unwrap();
        let spool = open(root.path(), 10);
        assert!(spool.accept("L|1", b"one", "!r").unwrap());
        assert!(spool.accept("L|2", b"two", "!r").unwrap());
        let before = spool.load(0).unwrap().unwrap();
        let spool = open(root.path(), 10);
        assert_eq!(spool.waiting(), [0, 1]);
        let after = spool.load(0).unwrap().unwrap();
        assert_eq!(before.txn_id, after.txn_id);
        assert_eq!(after.message.as_slice(), b"one");
    }

    #[test]
    fn a_repeated_message_is_known_even_after_delivery_and_restart() {
        let root = tempfile::tempdir().unwrap();
        let spool = open(root.path(), 10);
        assert!(spool.accept("L|1", b"one", "!r").unwrap());
        assert!(!spool.accept("L|1", b"one", "!r").unwrap());
        spool.finish(0).unwrap();
        let spool = open(root.path(), 10);
        assert!(spool.waiting().is_empty());
        assert!(spool.load(0).unwrap().is_none());
        assert!(!spool.accept("L|1", b"one", "!r").unwrap());
        assert!(matches!(spool.accept("L|1", b"other", "!r"), Err(SpoolError::Reused)));
        assert!(spool.accept("L|2", b"one", "!r").unwrap());
    }

    #[test]
    fn a_full_spool_accepts_again_once_something_is_delivered() {
        let root = tempfile::tempdir().unwrap();
        let spool = open(root.path(), 1);
        spool.accept("L|1", b"one", "!r").unwrap();
        assert!(matches!(spool.accept("L|2", b"two", "!r"), Err(SpoolError::Full)));
        spool.finish(0).unwrap();
        assert!(spool.accept("L|2", b"two", "!r").unwrap());
    }
}

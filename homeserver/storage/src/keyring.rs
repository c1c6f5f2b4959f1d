//! The key ring: content is readable as long as its data key exists, and not a moment longer.
//!
//! Every room and time bucket has a data key of its own. Content is sealed with it before any engine sees
//! it, so destroying 512 bytes in the ring's file makes every copy of that content unreadable: in the
//! engine, in its log, in stale pages and in backups. The ring therefore lives in a file of its own, is
//! overwritten in place and flushed, and is not part of a store's backup.
//!
//! A *bucket* is the caller's number: for expiring content the time in milliseconds at which the bucket
//! ends, for other content a number with the top bit set ([`NO_EXPIRY`]).
//!
//! - [`MasterKey`]: wraps the data keys; comes from outside of the data directory.
//! - [`KeyRing::seal`], [`KeyRing::open_sealed`]: small content in memory.
//! - [`KeyRing::seal_file`], [`KeyRing::open_file`]: media, in chunks.

mod aead;
mod create;
mod destroy;
mod file;
mod master;
mod media;
mod slot;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    num::NonZeroUsize,
    path::Path,
    sync::Arc,
};

use lru::LruCache;
use parking_lot::Mutex;

use self::{
    aead::{Cipher, NONCE_BYTES, TAG_BYTES},
    file::SlotFile,
    slot::{DataKey, KEY_ID_BYTES, SlotState},
};
pub use self::{
    master::{MasterKey, MasterKeyError},
    media::{FileOpener, FileSealer},
};

/// The bit that marks the bucket of content without a lifetime.
pub const NO_EXPIRY: u64 = 1 << 63;
/// How many buckets [`KeyRing::expired_buckets`] names at once.
pub const MAX_EXPIRED: usize = 10_000;
/// How many unwrapped keys are kept in memory.
const CACHED_KEYS: NonZeroUsize = NonZeroUsize::new(4096).unwrap();
/// The first byte of what [`KeyRing::seal`] makes.
const SEALED_FORMAT: u8 = 1;
const SEALED_HEAD_BYTES: usize = 1 + KEY_ID_BYTES + NONCE_BYTES;

/// Why the ring refused.
#[derive(Debug, thiserror::Error)]
pub enum KeyRingError {
    /// The disk or file system failed.
    #[error("key ring input or output")]
    Io(#[from] std::io::Error),
    /// The file is not a key ring of this version; nothing was overwritten.
    #[error("{0}")]
    Foreign(String),
    /// The ring was made under another master key; nothing was overwritten.
    #[error("the master key is not the one that this key ring was made with")]
    WrongMasterKey,
    /// Another process uses the ring.
    #[error("another process uses this key ring")]
    InUse,
    /// The data key was destroyed: the content is gone for good.
    #[error("the data key was destroyed")]
    KeyDestroyed,
    /// The sealed bytes were changed, or belong to something else.
    #[error("sealed content was changed or belongs elsewhere")]
    Tampered,
    /// The disk or the ring has no room for another key.
    #[error("no room for another data key")]
    Full,
    /// A flush failed before; the ring makes no further keys until it is opened again.
    #[error("the key ring failed to reach the disk and makes no further keys")]
    Failed,
    /// A room's id is longer than 255 bytes.
    #[error("a room id is longer than 255 bytes")]
    RoomTooLong,
    /// The operating system gave no random bytes.
    #[error("no random bytes from the operating system")]
    NoRandomness,
}

/// The data keys of all rooms and buckets, in one file that this process alone uses.
#[derive(Debug)]
pub struct KeyRing {
    file: SlotFile,
    state: Mutex<State>,
    /// The last ticket whose slot is durable; held while flushing, so that those who wait share one flush.
    synced: Mutex<u64>,
}

#[derive(Debug)]
struct State {
    /// The slot of each durable key.
    index: BTreeMap<Arc<str>, BTreeMap<u64, u32>>,
    /// The same, by the bucket's end.
    by_bucket: BTreeSet<(u64, Arc<str>)>,
    /// Keys that are written and not durable yet.
    pending: HashMap<(Arc<str>, u64), NewKey>,
    free: Vec<u32>,
    /// Slots whose destruction failed halfway.
    doomed: Vec<u32>,
    slots: u32,
    written: u64,
    failed: bool,
    damaged: usize,
    flushes: u64,
    cache: LruCache<u32, Arc<DataKey>>,
}

#[derive(Debug)]
struct NewKey {
    slot: u32,
    ticket: u64,
    key: Arc<DataKey>,
}

impl KeyRing {
    /// The ring in the file `path` is open; an empty one was made if there was none.
    ///
    /// # Errors
    /// [`KeyRingError::WrongMasterKey`], [`KeyRingError::Foreign`] and [`KeyRingError::InUse`]; nothing is
    /// overwritten then.
    pub fn open(path: &Path, master: MasterKey) -> Result<Self, KeyRingError> {
        let file = SlotFile::open(path, &master)?;
        let mut state = State {
            index: BTreeMap::new(),
            by_bucket: BTreeSet::new(),
            pending: HashMap::new(),
            free: Vec::new(),
            doomed: Vec::new(),
            slots: 0,
            written: 0,
            failed: false,
            damaged: 0,
            flushes: 0,
            cache: LruCache::new(CACHED_KEYS),
        };
        state.slots = file.scan(|slot, found| match found {
            SlotState::Free => state.free.push(slot),
            SlotState::Damaged => state.damaged = state.damaged.saturating_add(1),
            SlotState::Used(used) => state.insert(used.room.as_str().into(), used.bucket, slot),
        })?;
        // The lowest slots are used first.
        state.free.reverse();
        if state.damaged > 0 {
            // A slot is one disk sector, so a crash leaves it old or new. Damage means a failing disk.
            tracing::warn!(
                slots = state.damaged,
                "the key ring has damaged slots; the content under their keys is lost"
            );
        }
        Ok(Self { file, state: Mutex::new(state), synced: Mutex::new(0) })
    }

    /// The content, readable only through the data key of this room and bucket, which exists from now on.
    ///
    /// `aad` is what the content belongs to, an event id for example; opening needs the same.
    ///
    /// # Errors
    /// [`KeyRingError::Full`] and [`KeyRingError::Failed`] when a key was missing and could not be made durable.
    pub fn seal(&self, room: &str, bucket: u64, aad: &[u8], plaintext: &[u8]) -> Result<Vec<u8>, KeyRingError> {
        let key = self.find_or_create(room, bucket)?;
        let mut nonce = [0; NONCE_BYTES];
        random(&mut nonce)?;
        let mut sealed = Vec::with_capacity(SEALED_HEAD_BYTES + plaintext.len() + TAG_BYTES);
        sealed.push(SEALED_FORMAT);
        sealed.extend_from_slice(&key.id);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(plaintext);
        let body = sealed.get_mut(SEALED_HEAD_BYTES..).ok_or(KeyRingError::Tampered)?;
        let tag = Cipher::new(&key.bytes).seal(&nonce, &content_aad(aad), body)?;
        sealed.extend_from_slice(&tag);
        Ok(sealed)
    }

    /// What was sealed.
    ///
    /// # Errors
    /// [`KeyRingError::KeyDestroyed`] when the data key is gone; [`KeyRingError::Tampered`] when room, bucket,
    /// `aad` or the bytes are not those that were sealed.
    pub fn open_sealed(&self, room: &str, bucket: u64, aad: &[u8], sealed: &[u8]) -> Result<Vec<u8>, KeyRingError> {
        let (format, rest) = sealed.split_first().ok_or(KeyRingError::Tampered)?;
        let (id, rest) = rest.split_first_chunk::<KEY_ID_BYTES>().ok_or(KeyRingError::Tampered)?;
        let (nonce, rest) = rest.split_first_chunk::<NONCE_BYTES>().ok_or(KeyRingError::Tampered)?;
        let (body, tag) = rest.split_last_chunk::<TAG_BYTES>().ok_or(KeyRingError::Tampered)?;
        if *format != SEALED_FORMAT {
            return Err(KeyRingError::Tampered);
        }
        let key = self.find(room, bucket, id)?;
        let mut plaintext = body.to_vec();
        Cipher::new(&key.bytes).open(nonce, &content_aad(aad), &mut plaintext, tag)?;
        Ok(plaintext)
    }

    /// The buckets of a room that have a key, smallest first.
    #[must_use]
    pub fn buckets(&self, room: &str) -> Vec<u64> {
        self.state.lock().index.get(room).map(|buckets| buckets.keys().copied().collect()).unwrap_or_default()
    }

    /// The rooms and buckets whose end is at or before `now_ms`, oldest first, at most [`MAX_EXPIRED`].
    #[must_use]
    pub fn expired_buckets(&self, now_ms: u64) -> Vec<(String, u64)> {
        let state = self.state.lock();
        let ended = state.by_bucket.iter().take_while(|(bucket, _)| *bucket <= now_ms && *bucket < NO_EXPIRY);
        ended.take(MAX_EXPIRED).map(|(bucket, room)| (room.to_string(), *bucket)).collect()
    }

    /// How many keys there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.state.lock().by_bucket.len()
    }

    /// Whether there is no key at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many slots were unreadable when the ring was opened: content under their keys is lost.
    #[must_use]
    pub fn damaged_slots(&self) -> usize {
        self.state.lock().damaged
    }

    /// How many times the ring was flushed since it was opened.
    #[must_use]
    pub fn flushes(&self) -> u64 {
        self.state.lock().flushes
    }

    /// The key with this id.
    fn find(&self, room: &str, bucket: u64, id: &[u8; KEY_ID_BYTES]) -> Result<Arc<DataKey>, KeyRingError> {
        match self.state.lock().load(&self.file, room, bucket)? {
            // A bucket that was destroyed and used again has another key.
            Some(key) if key.id == *id => Ok(key),
            _ => Err(KeyRingError::KeyDestroyed),
        }
    }
}

impl State {
    fn insert(&mut self, room: Arc<str>, bucket: u64, slot: u32) {
        self.by_bucket.insert((bucket, Arc::clone(&room)));
        self.index.entry(room).or_default().insert(bucket, slot);
    }

    fn remove(&mut self, room: &str, bucket: u64) -> Option<u32> {
        let (name, _) = self.index.get_key_value(room)?;
        let name = Arc::clone(name);
        let buckets = self.index.get_mut(room)?;
        let slot = buckets.remove(&bucket)?;
        if buckets.is_empty() {
            self.index.remove(room);
        }
        self.by_bucket.remove(&(bucket, name));
        Some(slot)
    }

    /// The durable key of a bucket, from memory or from its slot.
    fn load(&mut self, file: &SlotFile, room: &str, bucket: u64) -> Result<Option<Arc<DataKey>>, KeyRingError> {
        let Some(slot) = self.index.get(room).and_then(|buckets| buckets.get(&bucket)).copied() else {
            return Ok(None);
        };
        if let Some(key) = self.cache.get(&slot) {
            return Ok(Some(Arc::clone(key)));
        }
        match file.read(slot)? {
            SlotState::Used(used) if used.room.as_str() == room && used.bucket == bucket => {
                let key = Arc::new(used.key);
                self.cache.put(slot, Arc::clone(&key));
                Ok(Some(key))
            }
            _ => Err(KeyRingError::Foreign("a key ring slot changed under a running server".to_owned())),
        }
    }
}

/// Content and files never share a meaning, even under one key.
fn content_aad(aad: &[u8]) -> Vec<u8> {
    [b"matron content\0".as_slice(), aad].concat()
}

fn random(bytes: &mut [u8]) -> Result<(), KeyRingError> {
    getrandom::fill(bytes).map_err(|_| KeyRingError::NoRandomness)
}

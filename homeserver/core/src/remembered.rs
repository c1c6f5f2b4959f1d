//! What was read from the store, remembered as long as the store's mark says that it has not changed.
//!
//! INVARIANT: the mark is taken before the reading (see [`matron_storage::Store::mark`]), so what is given is never
//! older than any position that was sampled before.

use std::{borrow::Borrow, hash::Hash, num::NonZeroUsize};

use lru::LruCache;
use matron_storage::Mark;
use parking_lot::Mutex;

use crate::Error;

/// A bounded memory of values, each good under one mark.
#[derive(Debug)]
pub(crate) struct Remembered<K: Hash + Eq, V>(Mutex<LruCache<K, (u64, V)>>);

impl<K: Hash + Eq + Clone, V: Clone> Remembered<K, V> {
    /// An empty memory of at most `capacity` values.
    pub(crate) fn new(capacity: usize) -> Self {
        Self(Mutex::new(LruCache::new(NonZeroUsize::new(capacity).unwrap_or(NonZeroUsize::MIN))))
    }

    /// The value that was read under this mark.
    pub(crate) fn find<Q: Hash + Eq + ?Sized>(&self, key: &Q, mark: Mark) -> Option<V>
    where
        K: Borrow<Q>,
    {
        self.0.lock().get(key).filter(|(version, _)| *version == mark.version).map(|(_, value)| value.clone())
    }

    /// Remembers what was read after the mark was taken.
    pub(crate) fn put(&self, key: K, mark: Mark, value: V) {
        self.0.lock().put(key, (mark.version, value));
    }

    /// The remembered value, or what `read` reads now. `mark` was taken before the call.
    ///
    /// # Errors
    /// What `read` gives.
    pub(crate) fn get_or_read<Q: Hash + Eq + ToOwned<Owned = K> + ?Sized>(
        &self,
        key: &Q,
        mark: Mark,
        read: impl FnOnce() -> Result<V, Error>,
    ) -> Result<V, Error>
    where
        K: Borrow<Q>,
    {
        if let Some(value) = self.find(key, mark) {
            return Ok(value);
        }
        let value = read()?;
        self.put(key.to_owned(), mark, value.clone());
        Ok(value)
    }
}

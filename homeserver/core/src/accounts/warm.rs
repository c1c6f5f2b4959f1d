//! What was derived from a user's rows, remembered without ever being stale.
//!
//! INVARIANT: a writer announces itself before its batch is submitted. From then until its change is visible, nothing
//! about this user is remembered, so a reader that samples the stream's position first sees every change at or below it.

use std::{collections::HashMap, num::NonZeroUsize};

use lru::LruCache;
use parking_lot::Mutex;
use ruma::{OwnedUserId, UserId};

/// A bounded memory of one value per user.
#[derive(Debug)]
pub(crate) struct Warm<V>(Mutex<Inner<V>>);

#[derive(Debug)]
struct Inner<V> {
    generation: u64,
    under_way: HashMap<OwnedUserId, usize>,
    known: LruCache<OwnedUserId, V>,
}

/// A change under way; it ends when this is dropped, which must be after the commit.
#[derive(Debug)]
#[must_use = "the change is under way until this is dropped"]
pub(crate) struct Changing<'a, V> {
    warm: &'a Warm<V>,
    user: OwnedUserId,
}

impl<V: Clone> Warm<V> {
    pub(crate) fn new(capacity: NonZeroUsize) -> Self {
        Self(Mutex::new(Inner { generation: 0, under_way: HashMap::new(), known: LruCache::new(capacity) }))
    }

    /// The remembered value, or the generation with which to [`Warm::remember`] what is read now.
    pub(crate) fn find(&self, user: &UserId) -> Result<V, u64> {
        let mut inner = self.0.lock();
        let generation = inner.generation;
        inner.known.get(user).cloned().ok_or(generation)
    }

    /// Remembers what was read, unless something changed since `generation`.
    pub(crate) fn remember(&self, generation: u64, user: &UserId, value: V) {
        let mut inner = self.0.lock();
        if inner.generation == generation && !inner.under_way.contains_key(user) {
            inner.known.put(user.to_owned(), value);
        }
    }

    /// Announces a change.
    pub(crate) fn begin(&self, user: &UserId) -> Changing<'_, V> {
        let mut inner = self.0.lock();
        let count = inner.under_way.entry(user.to_owned()).or_insert(0);
        *count = count.saturating_add(1);
        inner.generation = inner.generation.wrapping_add(1);
        inner.known.pop(user);
        Changing { warm: self, user: user.to_owned() }
    }

    /// Forgets a user's value after something that it follows from has changed.
    pub(crate) fn forget(&self, user: &UserId) {
        let mut inner = self.0.lock();
        inner.generation = inner.generation.wrapping_add(1);
        inner.known.pop(user);
    }
}

impl<V> Drop for Changing<'_, V> {
    fn drop(&mut self) {
        let mut inner = self.warm.0.lock();
        inner.generation = inner.generation.wrapping_add(1);
        if let Some(count) = inner.under_way.get_mut(&self.user) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                inner.under_way.remove(&self.user);
            }
        }
    }
}

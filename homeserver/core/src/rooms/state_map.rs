//! A room's state as a persistent map, and how states are kept: as deltas, each named by its own hash.

use std::{borrow::Borrow, cmp::Ordering, sync::Arc};

use matron_storage::{Batch, Key, StoreError, Table};
use ruma::{EventId, OwnedEventId};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{Core, Error, house::to_json};

/// A type and a state key. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StateKey {
    /// The event type.
    pub kind: Arc<str>,
    /// The state key.
    pub key: Arc<str>,
}

impl StateKey {
    /// The key of this type and state key.
    #[must_use]
    pub fn new(kind: &str, key: &str) -> Self {
        Self { kind: kind.into(), key: key.into() }
    }
}

/// A state: which event holds each type and state key. Cloning shares structure.
pub type StateMap = imbl::OrdMap<StateKey, Arc<OwnedEventId>>;

/// The event of this type and state key.
#[must_use]
pub fn find_in<'a>(state: &'a StateMap, kind: &str, key: &str) -> Option<&'a Arc<OwnedEventId>> {
    let names: &dyn Names = &(kind, key);
    state.get(names)
}

/// What a state is searched by: a search makes no key of its own.
trait Names {
    fn names(&self) -> (&str, &str);
}

impl Names for StateKey {
    fn names(&self) -> (&str, &str) {
        (&self.kind, &self.key)
    }
}

impl Names for (&str, &str) {
    fn names(&self) -> (&str, &str) {
        *self
    }
}

impl PartialEq for dyn Names + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.names() == other.names()
    }
}

impl Eq for dyn Names + '_ {}

impl PartialOrd for dyn Names + '_ {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for dyn Names + '_ {
    // INVARIANT: as `StateKey` is ordered.
    fn cmp(&self, other: &Self) -> Ordering {
        self.names().cmp(&other.names())
    }
}

impl<'a> Borrow<dyn Names + 'a> for StateKey {
    fn borrow(&self) -> &(dyn Names + 'a) {
        self
    }
}

/// The name of a stored state: a hash over the state it came from and what changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupId(pub [u8; 16]);

impl GroupId {
    /// The empty state: before a room's first event.
    pub const EMPTY: Self = Self([0; 16]);
}

/// One difference between two states; `None` where the later one has no event.
pub type Change = (StateKey, Option<Arc<OwnedEventId>>);

/// After this many deltas a state is written whole.
const SNAPSHOT_EVERY: u32 = 48;

#[derive(Serialize, Deserialize)]
struct GroupRow {
    /// Hex of the group that the changes apply to; the empty state for a snapshot.
    base: [u8; 16],
    /// Deltas since the last snapshot.
    depth: u32,
    /// (type, state key, event id or null).
    changes: Vec<(String, String, Option<String>)>,
}

/// What changed from `before` to `after`.
#[must_use]
pub fn difference(before: &StateMap, after: &StateMap) -> Vec<Change> {
    if before.ptr_eq(after) {
        return Vec::new();
    }
    before
        .diff(after)
        .map(|item| match item {
            imbl::ordmap::DiffItem::Add(key, id) | imbl::ordmap::DiffItem::Update { new: (key, id), .. } => {
                (key.clone(), Some(Arc::clone(id)))
            }
            imbl::ordmap::DiffItem::Remove(key, _) => (key.clone(), None),
        })
        .collect()
}

impl Core {
    /// Adds the state `after` to the batch, as a delta on `base` (or whole), and returns its name.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(crate) fn write_state_group(
        &self,
        batch: &mut Batch,
        base: GroupId,
        changes: &[Change],
        after: &StateMap,
    ) -> Result<GroupId, Error> {
        if changes.is_empty() {
            return Ok(base);
        }
        let mut hash = Sha256::new();
        hash.update(base.0);
        for (key, id) in changes {
            for part in [key.kind.as_bytes(), key.key.as_bytes(), id.as_ref().map_or(&[][..], |id| id.as_bytes())] {
                hash.update(u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
                hash.update(part);
            }
        }
        let digest = hash.finalize();
        let mut id = [0; 16];
        for (into, from) in id.iter_mut().zip(digest.iter()) {
            *into = *from;
        }
        let id = GroupId(id);
        let depth = self.rooms.group_depth(base).saturating_add(1);
        let row = if base == GroupId::EMPTY || depth >= SNAPSHOT_EVERY {
            GroupRow { base: GroupId::EMPTY.0, depth: 0, changes: whole(after) }
        } else {
            GroupRow { base: base.0, depth, changes: changes.iter().map(row_of).collect() }
        };
        batch.put(Table::RoomStateGroup, id.0.to_vec(), to_json(&row)?);
        self.rooms.cache_group(id, after.clone(), row.depth);
        Ok(id)
    }

    /// The state with this name.
    ///
    /// # Errors
    /// [`Error::Store`] when it, or a state it builds on, is not there.
    pub fn load_state_group(&self, id: GroupId) -> Result<StateMap, Error> {
        if id == GroupId::EMPTY {
            return Ok(StateMap::new());
        }
        if let Some(state) = self.rooms.cached_group(id) {
            return Ok(state);
        }
        let mut chain = Vec::new();
        let mut at = id;
        let mut state = StateMap::new();
        while at != GroupId::EMPTY {
            if let Some(cached) = self.rooms.cached_group(at) {
                state = cached;
                break;
            }
            if chain.len() > 2 * SNAPSHOT_EVERY as usize {
                return Err(Error::Store(StoreError::Corrupt("a chain of state groups has no end".to_owned())));
            }
            let row: GroupRow = self
                .load(Table::RoomStateGroup, &Key::new().raw(&at.0))?
                .ok_or_else(|| Error::Store(StoreError::Corrupt("a state group is missing".to_owned())))?;
            at = GroupId(row.base);
            chain.push(row);
        }
        let depth = chain.first().map_or(0, |row| row.depth);
        for row in chain.into_iter().rev() {
            for (kind, key, event_id) in row.changes {
                let key = StateKey::new(&kind, &key);
                match event_id.as_deref().map(<&EventId>::try_from) {
                    Some(Ok(event_id)) => {
                        state.insert(key, Arc::new(event_id.to_owned()));
                    }
                    Some(Err(_)) => {
                        return Err(Error::Store(StoreError::Corrupt("a state group names no event".to_owned())));
                    }
                    None => {
                        state.remove(&key);
                    }
                }
            }
        }
        self.rooms.cache_group(id, state.clone(), depth);
        Ok(state)
    }
}

fn row_of((key, id): &Change) -> (String, String, Option<String>) {
    (key.kind.to_string(), key.key.to_string(), id.as_ref().map(|id| id.to_string()))
}

fn whole(state: &StateMap) -> Vec<(String, String, Option<String>)> {
    state.iter().map(|(key, id)| (key.kind.to_string(), key.key.to_string(), Some(id.to_string()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_by_two_texts_finds_what_a_key_finds() {
        let mut state = StateMap::new();
        for kind in ["a", "ab", "b", "m.room.member"] {
            for key in ["", "a", "@u:x", "b"] {
                let id = OwnedEventId::try_from(format!("${kind}-{key}")).unwrap();
                state.insert(StateKey::new(kind, key), Arc::new(id));
            }
        }
        for kind in ["", "a", "ab", "abc", "b", "m.room.member", "z"] {
            for key in ["", "a", "@u:x", "b", "c"] {
                assert_eq!(find_in(&state, kind, key), state.get(&StateKey::new(kind, key)), "{kind} {key}");
            }
        }
    }
}

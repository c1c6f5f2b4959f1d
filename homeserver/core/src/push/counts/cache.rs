//! Warm counts, by room, and which events they hold.

use std::{
    collections::{HashMap, HashSet, VecDeque, hash_map::Entry},
    num::NonZeroUsize,
};

use lru::LruCache;
use matron_storage::StreamPos;
use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, UserId};

use super::{Counts, MAX_TAIL, stream_position};
use crate::rooms::record::EventRef;

/// The warm counts of one room.
#[derive(Debug, Default)]
struct RoomCounts {
    users: HashMap<OwnedUserId, Counts>,
    /// The last events that were added to all of them.
    recent: VecDeque<StreamPos>,
    /// Events up to here may have been added without being among `recent`.
    forgotten: StreamPos,
}

impl RoomCounts {
    fn note(&mut self, position: StreamPos) {
        self.recent.push_back(position);
        if self.recent.len() > MAX_TAIL
            && let Some(oldest) = self.recent.pop_front()
        {
            self.forgotten = self.forgotten.max(oldest);
        }
    }
}

/// Events at the end of a room's timeline that warm counts may not hold yet.
#[derive(Debug, Default)]
pub(super) struct Tail {
    /// Warm counts hold every event up to here.
    pub(super) counted_to: StreamPos,
    /// The later ones, oldest first.
    pub(super) events: Vec<EventRef>,
}

/// What push rules say of a committed event, for all warm counts of its room.
#[derive(Debug)]
pub(in crate::push) struct Counted<'a> {
    pub(in crate::push) room: &'a RoomId,
    pub(in crate::push) position: StreamPos,
    /// The root of its thread.
    pub(in crate::push) thread: Option<OwnedEventId>,
    /// Whom it notifies, and for whom it stands out.
    pub(in crate::push) notified: Vec<(&'a UserId, bool)>,
    /// Who said it, and so has read what was before it in the thread.
    pub(in crate::push) said_by: Option<&'a UserId>,
}

/// Warm counts, by room: an event asks for those of its room.
#[derive(Debug)]
pub(in crate::push) struct CountCache {
    pub(super) generation: u64,
    capacity: usize,
    /// How many counts there are in all rooms.
    size: usize,
    known: LruCache<OwnedRoomId, RoomCounts>,
    /// Whose receipts of which room are on their way to the disk, and how many at once: see [`CountCache::begin_move`].
    moving: HashMap<(OwnedUserId, OwnedRoomId), usize>,
    /// The latest event of each room that was announced to this cache.
    pub(super) latest: LruCache<OwnedRoomId, StreamPos>,
}

impl CountCache {
    pub(in crate::push) fn new(capacity: NonZeroUsize) -> Self {
        let known = LruCache::unbounded();
        let moving = HashMap::new();
        Self { generation: 0, capacity: capacity.get(), size: 0, known, moving, latest: LruCache::new(capacity) }
    }

    /// The user's receipts of the room are about to move: until [`CountCache::end_move`] none of the user's counts is kept or
    /// found. A sync may see that they moved as soon as they are on the disk, and would tell with it a count of before, for good.
    pub(in crate::push) fn begin_move(&mut self, user: &UserId, room: &OwnedRoomId) {
        self.remove(user, room);
        let count = self.moving.entry((user.to_owned(), room.clone())).or_insert(0);
        *count = count.saturating_add(1);
    }

    /// The receipts have moved, or will not.
    pub(in crate::push) fn end_move(&mut self, user: &UserId, room: &OwnedRoomId) {
        self.forget(user, room);
        if let Entry::Occupied(mut count) = self.moving.entry((user.to_owned(), room.clone())) {
            *count.get_mut() = count.get().saturating_sub(1);
            if *count.get() == 0 {
                count.remove();
            }
        }
    }

    /// Announces an event, and gives those whose counts are warm: later ones find it in the timeline.
    pub(in crate::push) fn announce(&mut self, room: &RoomId, position: StreamPos) -> HashSet<OwnedUserId> {
        let latest = self.latest.get_or_insert_mut(room.to_owned(), StreamPos::default);
        *latest = (*latest).max(position);
        self.known.get(room).map(|counts| counts.users.keys().cloned().collect()).unwrap_or_default()
    }

    /// The event is in every warm count of its room that it belongs in. Whether it changed what its sender has unread.
    pub(in crate::push) fn add(&mut self, event: &Counted<'_>) -> bool {
        let Some(room) = self.known.get_mut(event.room) else { return false };
        room.note(event.position);
        for (user, highlight) in &event.notified {
            if let Some(counts) = room.users.get_mut(*user) {
                counts.add_later(event.position, event.thread.clone(), *highlight);
            }
        }
        let Some(user) = event.said_by else { return false };
        let Some(counts) = room.users.get_mut(user) else { return false };
        let before = counts.total();
        if counts.read_to(event.position, event.thread.clone()) {
            return before != counts.total();
        }
        self.forget(user, &event.room.to_owned());
        true
    }

    /// The user's warm count, and which events of the tail it does not hold.
    pub(super) fn find(&mut self, user: &UserId, room: &RoomId, tail: Tail) -> Option<(Counts, Vec<EventRef>)> {
        let known = self.known.get(room)?;
        let counts = known.users.get(user)?;
        if tail.events.is_empty() {
            return Some((counts.clone(), tail.events));
        }
        if tail.counted_to < known.forgotten {
            return None;
        }
        let is_missing = |event: &EventRef| {
            stream_position(event).is_some_and(|position| position > counts.base && !known.recent.contains(&position))
        };
        Some((counts.clone(), tail.events.into_iter().filter(is_missing).collect()))
    }

    /// Keeps the user's counts, unless the user's receipts are moving.
    pub(super) fn put(&mut self, user: OwnedUserId, room: OwnedRoomId, counts: Counts) {
        let key = (user, room);
        if self.moving.contains_key(&key) {
            return;
        }
        let (user, room) = key;
        if self.known.get_or_insert_mut(room, RoomCounts::default).users.insert(user, counts).is_none() {
            self.size = self.size.saturating_add(1);
        }
        // The rooms in which nothing was said or asked for the longest time go first.
        while self.size > self.capacity {
            let Some((_, counts)) = self.known.pop_lru() else { break };
            self.size = self.size.saturating_sub(counts.users.len());
        }
    }

    pub(in crate::push) fn forget(&mut self, user: &UserId, room: &OwnedRoomId) {
        self.generation = self.generation.wrapping_add(1);
        self.remove(user, room);
    }

    fn remove(&mut self, user: &UserId, room: &OwnedRoomId) {
        let Some(counts) = self.known.peek_mut(room) else { return };
        if counts.users.remove(user).is_some() {
            self.size = self.size.saturating_sub(1);
        }
        if counts.users.is_empty() {
            self.known.pop(room);
        }
    }

    /// All counts of a room: what it holds changed.
    pub(in crate::push) fn forget_room(&mut self, room: &RoomId) {
        self.generation = self.generation.wrapping_add(1);
        if let Some(counts) = self.known.pop(room) {
            self.size = self.size.saturating_sub(counts.users.len());
        }
    }

    /// All counts of a user: their rules changed.
    pub(in crate::push) fn forget_user(&mut self, user: &UserId) {
        self.generation = self.generation.wrapping_add(1);
        for (_, counts) in &mut self.known {
            if counts.users.remove(user).is_some() {
                self.size = self.size.saturating_sub(1);
            }
        }
    }
}

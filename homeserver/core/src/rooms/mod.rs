//! Rooms: the single writer of each, and everything that local users do in them.
//!
//! - [`room`]: a room in memory, and how it is opened.
//! - [`state_map`], [`record`], [`events`]: how states and events lie in the store and are read.
//! - [`append`]: one event becomes one batch; the only writer of rooms.
//! - [`send`]: drafting, judging, authorising and sealing an event of ours.
//! - [`create`], [`membership`], [`redact`], [`receipts`], [`aliases`], [`public`], [`upgrade`]: what users do.
//! - [`join_rules`]: who may join.
//! - [`delayed`]: what is sent later.
//! - [`read`]: what users see, and [`visibility`]: what they may.

pub mod aliases;
pub mod append;
pub mod changes;
pub mod create;
pub mod delayed;
pub mod events;
pub(crate) mod join_rules;
pub mod members;
pub mod membership;
pub mod public;
pub mod read;
pub mod receipts;
pub mod record;
pub mod redact;
pub mod report;
pub mod room;
pub mod send;
pub mod state_map;
pub mod upgrade;
pub mod visibility;

use std::{
    collections::HashMap,
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use lru::LruCache;
use parking_lot::Mutex;
use ruma::{EventId, OwnedEventId, OwnedRoomId, RoomId};

pub use self::{
    changes::{ChangeGuard, ChangeLog},
    members::{RoomUser, UserRoom},
    record::{EventRef, Record, Status, StoredEvent},
    room::{Room, RoomMeta},
    state_map::{GroupId, StateKey, StateMap},
};
use crate::{Core, Error, remembered::Remembered};

/// How many opened events are kept in memory.
const EVENT_CACHE: usize = 8192;
/// How many states are kept in memory; neighbours share structure.
const GROUP_CACHE: usize = 1024;
/// How many rooms are kept open.
const OPEN_ROOMS: usize = 4096;
/// How many users' lists of rooms are kept.
const USER_CACHE: usize = 8192;
/// Of how many rooms it is remembered what syncs ask again and again.
const REMEMBERED_ROOMS: usize = 1024;
/// How many recent transaction ids are kept; what one of before did is found by the batch that would do it again.
const TXN_CACHE: usize = 2048;
/// Of how many recent events it is kept which transaction made them.
const SENT_CACHE: usize = 4096;

/// What rooms keep in memory; truth lives in the store.
#[derive(Debug)]
pub struct State {
    open: Mutex<LruCache<OwnedRoomId, Arc<Room>>>,
    events: Mutex<LruCache<OwnedEventId, EventRef>>,
    /// Moves when something cached was forgotten, so that a slow reader does not put back what is stale.
    generation: AtomicU64,
    groups: Mutex<LruCache<GroupId, (StateMap, u32)>>,
    pub(crate) users: Mutex<LruCache<ruma::OwnedUserId, Arc<members::UserRooms>>>,
    pub(crate) txns: Mutex<LruCache<Vec<u8>, OwnedEventId>>,
    /// Events on their way to the disk: part of their rooms already, shown to nobody yet.
    under_way: Arc<Mutex<HashMap<OwnedEventId, EventRef>>>,
    /// Which transaction made an event, for the device that sent it.
    pub(crate) sent: Mutex<LruCache<OwnedEventId, send::Txn>>,
    /// The ends of timelines, for those who wait for more.
    pub(crate) tails: Remembered<OwnedRoomId, Arc<crate::sync::timeline::Tail>>,
    /// Whether a room has no receipts at all.
    pub(crate) without_receipts: Remembered<OwnedRoomId, bool>,
    /// Whether no redaction waits for what it names.
    pub(crate) without_redactions: Remembered<(), bool>,
    /// Who makes up a room's name, and how many are invited.
    pub(crate) crowds: Remembered<OwnedRoomId, Arc<members::Crowd>>,
    /// Moves when something relates to an event anew.
    relation_generation: AtomicU64,
    /// Which rooms changed lately, for incremental syncs.
    pub changes: Arc<ChangeLog>,
    /// Rooms that are being joined over federation, so that two joins share one handshake.
    pub(crate) joining: Mutex<HashMap<OwnedRoomId, Arc<tokio::sync::Mutex<()>>>>,
}

/// An event on its way to the disk.
#[derive(Debug)]
pub(crate) struct UnderWay {
    all: Arc<Mutex<HashMap<OwnedEventId, EventRef>>>,
    id: OwnedEventId,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.all.lock().remove(&self.id);
    }
}

fn cache<K: std::hash::Hash + Eq, V>(size: usize) -> Mutex<LruCache<K, V>> {
    Mutex::new(LruCache::new(NonZeroUsize::new(size).unwrap_or(NonZeroUsize::MIN)))
}

impl Default for State {
    fn default() -> Self {
        Self {
            open: cache(OPEN_ROOMS),
            events: cache(EVENT_CACHE),
            generation: AtomicU64::new(0),
            groups: cache(GROUP_CACHE),
            users: cache(USER_CACHE),
            txns: cache(TXN_CACHE),
            under_way: Arc::default(),
            sent: cache(SENT_CACHE),
            tails: Remembered::new(REMEMBERED_ROOMS),
            without_receipts: Remembered::new(OPEN_ROOMS),
            without_redactions: Remembered::new(1),
            crowds: Remembered::new(REMEMBERED_ROOMS),
            relation_generation: AtomicU64::new(0),
            changes: Arc::default(),
            joining: Mutex::default(),
        }
    }
}

impl State {
    /// The event, if it is on its way to the disk.
    pub(crate) fn under_way(&self, id: &EventId) -> Option<EventRef> {
        self.under_way.lock().get(id).cloned()
    }

    /// The event is on its way to the disk, for as long as what this gives lives.
    pub(crate) fn set_out(&self, event: EventRef) -> UnderWay {
        let id = event.id().to_owned();
        self.under_way.lock().insert(id.clone(), event);
        UnderWay { all: Arc::clone(&self.under_way), id }
    }

    pub(crate) fn cached_event(&self, id: &EventId) -> Option<EventRef> {
        self.events.lock().get(id).cloned()
    }

    /// What to pass to the caching calls: read it before reading the store.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    pub(crate) fn cache_event(&self, generation: u64, event: &EventRef) {
        let mut events = self.events.lock();
        if self.generation() == generation {
            events.put(event.id().to_owned(), Arc::clone(event));
        }
    }

    pub(crate) fn cache_user(&self, generation: u64, user: &ruma::UserId, rooms: &Arc<members::UserRooms>) {
        let mut users = self.users.lock();
        if self.generation() == generation {
            users.put(user.to_owned(), Arc::clone(rooms));
        }
    }

    /// Forgets what memory holds of a user's rooms, because the store holds something newer.
    pub(crate) fn forget_user(&self, user: &ruma::UserId) {
        let mut users = self.users.lock();
        users.pop(user);
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// Forgets what memory holds of an event, because the store holds something newer.
    pub(crate) fn forget_event(&self, id: &EventId) {
        let mut events = self.events.lock();
        events.pop(id);
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// What to pass to [`State::remember_unrelated`]: read it before reading the store.
    pub(crate) fn relation_generation(&self) -> u64 {
        self.relation_generation.load(Ordering::Acquire)
    }

    /// Remembers that nothing relates to the event.
    pub(crate) fn remember_unrelated(&self, generation: u64, event: &StoredEvent) {
        // INVARIANT: under the lock, so that a relation that comes now is not overlooked.
        let _events = self.events.lock();
        if self.relation_generation() == generation {
            event.unrelated.set(true);
        }
    }

    /// Something relates to the event now.
    pub(crate) fn forget_unrelated(&self, id: &EventId) {
        let events = self.events.lock();
        if let Some(event) = events.peek(id) {
            event.unrelated.set(false);
        }
        self.relation_generation.fetch_add(1, Ordering::AcqRel);
    }

    pub(crate) fn cached_group(&self, id: GroupId) -> Option<StateMap> {
        self.groups.lock().get(&id).map(|(state, _)| state.clone())
    }

    pub(crate) fn group_depth(&self, id: GroupId) -> u32 {
        // An uncached base counts as deep, so that the next state is written whole.
        self.groups.lock().peek(&id).map_or(u32::MAX, |(_, depth)| *depth)
    }

    pub(crate) fn cache_group(&self, id: GroupId, state: StateMap, depth: u32) {
        self.groups.lock().put(id, (state, depth));
    }

    pub(crate) fn opened(&self, id: &RoomId) -> Option<Arc<Room>> {
        self.open.lock().get(id).cloned()
    }

    /// Keeps a room open; if another caller opened it meanwhile, that one counts.
    pub(crate) fn keep_open(&self, room: Arc<Room>) -> Arc<Room> {
        let mut open = self.open.lock();
        if let Some(first) = open.get(room.id()) {
            return Arc::clone(first);
        }
        open.put(room.id().to_owned(), Arc::clone(&room));
        room
    }

    /// Closes a room, so that the next use reads it from the store again.
    pub(crate) fn close(&self, id: &RoomId) {
        self.open.lock().pop(id);
    }

    /// How many rooms are open.
    #[must_use]
    pub fn open_count(&self) -> usize {
        self.open.lock().len()
    }
}

impl Core {
    pub(crate) fn start_rooms(&self) -> Result<(), Error> {
        self.rooms.changes.start_at(self.position());
        Ok(())
    }
}

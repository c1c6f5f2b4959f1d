//! How much a user has not read, by room and thread.
//!
//! INVARIANT: a warm count holds every notifying event after the user's receipts. Those at or below its `base` were
//! found in the timeline when it was made; each later one adds itself, once, when it is committed. A count is only
//! kept if no later one came while it was made, which `latest` tells.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    num::NonZeroUsize,
    sync::Arc,
};

use lru::LruCache;
use matron_room::Membership;
use matron_storage::{Key, KeyRange, KeyReader, Order, StreamPos, Table};
use ruma::{EventId, OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, UserId};
use serde::Deserialize;
use serde_json::Value;

use super::{
    evaluate::{Actions, EventView, evaluate},
    new_event::RoomContext,
    worker::{Job, News},
};
use crate::{
    Core, Error,
    rooms::{StateKey, append::relation_of, record::EventRef},
};

/// How far back unread events of a cold room are counted.
const MAX_COUNTED_EVENTS: usize = 2_000;

/// How many hops lead from an event to its thread's root. SPEC: "Marking notifications as read".
const MAX_THREAD_HOPS: usize = 3;

/// How many changes of a member's name are looked through for the joining.
const MAX_PROFILE_CHANGES: usize = 32;

/// How many threads are counted apart; more are counted in the main timeline.
const MAX_THREADS: usize = 1_000;

/// Unread events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Unread {
    /// Those that notify.
    pub notification_count: u64,
    /// Those that stand out.
    pub highlight_count: u64,
}

impl Unread {
    fn add(&mut self, highlight: bool) {
        self.notification_count = self.notification_count.saturating_add(1);
        if highlight {
            self.highlight_count = self.highlight_count.saturating_add(1);
        }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            notification_count: self.notification_count.saturating_add(other.notification_count),
            highlight_count: self.highlight_count.saturating_add(other.highlight_count),
        }
    }
}

/// What a user has not read of a room.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Outside threads.
    pub main: Unread,
    /// By root of thread; threads without unread events are left out.
    pub threads: BTreeMap<OwnedEventId, Unread>,
    /// Events up to this position were counted from the timeline.
    base: StreamPos,
    /// The last event that was added since.
    latest: StreamPos,
    /// Where the user said something since, outside threads and by root: what was before it is read.
    said: HashMap<Option<OwnedEventId>, StreamPos>,
}

impl Counts {
    /// All of the room, threads included.
    #[must_use]
    pub fn total(&self) -> Unread {
        self.threads.values().fold(self.main, |sum, thread| sum.plus(*thread))
    }

    /// Adds an event that came after the count was made. Events may be added in another order than they came in.
    fn add_later(&mut self, position: StreamPos, thread: Option<OwnedEventId>, highlight: bool) {
        if position <= self.base || self.said.get(&thread).is_some_and(|said| position < *said) {
            return;
        }
        self.latest = self.latest.max(position);
        add(self, thread, highlight);
    }

    /// The user said something in the thread, and has read what was before. `false`: what was counted may have come
    /// after it, and must be counted anew.
    fn read_to(&mut self, position: StreamPos, thread: Option<OwnedEventId>) -> bool {
        if position <= self.base {
            return true;
        }
        if position < self.latest || self.said.len() >= MAX_THREADS {
            return false;
        }
        match &thread {
            Some(root) => drop(self.threads.remove(root)),
            None => self.main = Unread::default(),
        }
        let said = self.said.entry(thread).or_default();
        *said = (*said).max(position);
        true
    }
}

/// Warm counts, by room: an event asks for those of its room.
#[derive(Debug)]
pub(super) struct CountCache {
    generation: u64,
    capacity: usize,
    /// How many counts there are in all rooms.
    size: usize,
    known: LruCache<OwnedRoomId, HashMap<OwnedUserId, Counts>>,
    /// The latest event of each room that was announced to this cache.
    latest: LruCache<OwnedRoomId, StreamPos>,
}

impl CountCache {
    pub(super) fn new(capacity: NonZeroUsize) -> Self {
        let known = LruCache::unbounded();
        Self { generation: 0, capacity: capacity.get(), size: 0, known, latest: LruCache::new(capacity) }
    }

    /// Announces an event, and gives those whose counts are warm: later ones find it in the timeline.
    pub(super) fn announce(&mut self, room: &RoomId, position: StreamPos) -> HashSet<OwnedUserId> {
        let latest = self.latest.get_or_insert_mut(room.to_owned(), StreamPos::default);
        *latest = (*latest).max(position);
        self.known.get(room).map(|users| users.keys().cloned().collect()).unwrap_or_default()
    }

    fn get(&mut self, user: &UserId, room: &RoomId) -> Option<&mut Counts> {
        self.known.get_mut(room)?.get_mut(user)
    }

    fn put(&mut self, user: OwnedUserId, room: OwnedRoomId, counts: Counts) {
        if self.known.get_or_insert_mut(room, HashMap::new).insert(user, counts).is_none() {
            self.size = self.size.saturating_add(1);
        }
        // The rooms in which nothing was said or asked for the longest time go first.
        while self.size > self.capacity {
            let Some((_, users)) = self.known.pop_lru() else { break };
            self.size = self.size.saturating_sub(users.len());
        }
    }

    pub(super) fn forget(&mut self, user: &UserId, room: &OwnedRoomId) {
        self.generation = self.generation.wrapping_add(1);
        let Some(users) = self.known.peek_mut(room) else { return };
        if users.remove(user).is_some() {
            self.size = self.size.saturating_sub(1);
        }
        if users.is_empty() {
            self.known.pop(room);
        }
    }

    /// All counts of a room: what it holds changed.
    pub(super) fn forget_room(&mut self, room: &RoomId) {
        self.generation = self.generation.wrapping_add(1);
        if let Some(users) = self.known.pop(room) {
            self.size = self.size.saturating_sub(users.len());
        }
    }

    /// All counts of a user: their rules changed.
    pub(super) fn forget_user(&mut self, user: &UserId) {
        self.generation = self.generation.wrapping_add(1);
        for (_, users) in &mut self.known {
            if users.remove(user).is_some() {
                self.size = self.size.saturating_sub(1);
            }
        }
    }
}

/// Up to where a user has read, in timeline order.
#[derive(Clone, Debug, Default)]
pub(super) struct Read {
    /// Where the user joined.
    pub(super) joined: u64,
    everything: u64,
    main: u64,
    threads: BTreeMap<String, u64>,
}

impl Read {
    pub(super) fn covers(&self, timeline: u64, thread: Option<&EventId>) -> bool {
        let apart = thread.map_or(self.main, |root| self.threads.get(root.as_str()).copied().unwrap_or(0));
        timeline <= self.everything.max(apart)
    }

    /// The earliest event that may be unread is after this.
    fn floor(&self) -> u64 {
        self.everything
    }
}

#[derive(Deserialize)]
struct Receipt {
    event_id: OwnedEventId,
}

impl Core {
    /// What the user has not read of the room. Warm rooms read no disk.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn count_unread(&self, user: &UserId, room: &RoomId) -> Result<Counts, Error> {
        let is_complete = self.is_all_counted(room)?;
        let generation = {
            let mut cache = self.push.counts.lock();
            if is_complete && let Some(counts) = cache.get(user, room) {
                return Ok(counts.clone());
            }
            cache.generation
        };
        let counts = self.count_anew(user, room)?;
        let mut cache = self.push.counts.lock();
        let latest = cache.latest.get(room).copied().unwrap_or_default();
        if cache.generation == generation && latest <= counts.base {
            cache.put(user.to_owned(), room.to_owned(), counts.clone());
        }
        Ok(counts)
    }

    /// Whether warm counts hold every event of the room that a sync may see by now.
    fn is_all_counted(&self, room: &RoomId) -> Result<bool, Error> {
        let Some(counted_to) = self.push.expected.counted_to(room) else { return Ok(true) };
        let prefix = Key::new().text(room);
        let newest = self.store.scan(Table::RoomTimeline, &prefix.prefix(), Order::Descending, 1)?;
        let newest = newest.first().and_then(|(key, _)| key.get(prefix.as_bytes().len()..));
        let newest = newest.and_then(|rest| KeyReader::new(rest).number());
        Ok(newest.is_none_or(|newest| newest <= (1 << 63) | counted_to.0))
    }

    /// The user's receipts of the room moved, or what it holds changed: the counts are counted anew, and the user's devices wake.
    pub fn unread_changed(&self, user: &UserId, room: &RoomId) {
        self.push.forget_counts(user, &room.to_owned());
        self.notifier.wake_user(user);
        match self.pushers_of(user) {
            Ok(pushers) => {
                for pusher in pushers.iter().filter(|pusher| pusher.enabled) {
                    self.push.jobs.add(Job { user: user.to_owned(), pusher: pusher.id(), news: News::Badge });
                }
            }
            Err(error) => tracing::warn!(%error, "pushers could not be told of what was read"),
        }
    }

    /// Adds a notifying event to a warm count.
    pub(super) fn count_event(
        &self,
        user: &UserId,
        event: &EventRef,
        position: StreamPos,
        actions: &Actions,
    ) -> Result<(), Error> {
        let thread = self.thread_of(event)?;
        let mut cache = self.push.counts.lock();
        if let Some(counts) = cache.get(user, event.pdu.room_id()) {
            counts.add_later(position, thread, actions.highlight);
        }
        Ok(())
    }

    /// What the user said shows that they have read what was before it in the thread.
    ///
    /// SPEC: v1.19 Client-Server API, "Marking notifications as read": by a receipt, or by sending an event.
    pub(super) fn count_own(&self, user: &UserId, event: &EventRef, position: StreamPos) -> Result<(), Error> {
        let thread = self.thread_of(event)?;
        let room = event.pdu.room_id().to_owned();
        {
            let mut cache = self.push.counts.lock();
            let Some(counts) = cache.get(user, &room) else { return Ok(()) };
            let before = counts.total();
            let done = counts.read_to(position, thread);
            let after = counts.total();
            if !done {
                cache.forget(user, &room);
            } else if before == after {
                return Ok(());
            }
        }
        for pusher in self.pushers_of(user)?.iter().filter(|pusher| pusher.enabled) {
            self.push.jobs.add(Job { user: user.to_owned(), pusher: pusher.id(), news: News::Badge });
        }
        Ok(())
    }

    fn count_anew(&self, user: &UserId, room: &RoomId) -> Result<Counts, Error> {
        let mut counts = Counts { base: self.position(), ..Counts::default() };
        let ceiling = (1 << 63) | counts.base.0;
        let Some(open) = self.find_room(room)? else { return Ok(counts) };
        let context = self.push_context(&mut open.lock())?;
        let read = self.read_positions(user, room)?;
        let rules = self.compiled_rules(user)?;
        let ignored = self.ignored_users(user)?;
        let now_ms = self.now_ms();
        // Newest first: once the user said something, what comes next was read.
        let mut said = HashSet::new();
        for event in self.unread_events(room, read.floor())? {
            // What expired or was redacted notifies nobody.
            if event.record.timeline > ceiling || !event.is_shown(now_ms) || event.is_emptied() {
                continue;
            }
            if *event.pdu.sender() == *user {
                if !event.pdu.is_state() {
                    said.insert(self.thread_of(&event)?);
                }
                continue;
            }
            if ignored.contains(event.pdu.sender()) {
                continue;
            }
            let thread = self.thread_of(&event)?;
            if said.contains(&thread) || read.covers(event.record.timeline, thread.as_deref()) {
                continue;
            }
            if let Some(actions) = self.actions_for(user, &rules, &context, &event)? {
                add(&mut counts, thread, actions.highlight);
            }
        }
        Ok(counts)
    }

    /// The actions of an event that notifies the user.
    pub(super) fn actions_for(
        &self,
        user: &UserId,
        rules: &super::CompiledRules,
        room: &RoomContext,
        event: &EventRef,
    ) -> Result<Option<Arc<Actions>>, Error> {
        let context = self.user_context(user, room, rules, event)?;
        let actions = evaluate(rules, user, &EventView::new(&event.pdu), &context);
        Ok(actions.filter(|actions| actions.notify))
    }

    /// The newest events after `floor`, at most [`MAX_COUNTED_EVENTS`], newest first.
    fn unread_events(&self, room: &RoomId, floor: u64) -> Result<Vec<EventRef>, Error> {
        let prefix = Key::new().text(room);
        let range = KeyRange { start: prefix.clone().number(floor.saturating_add(1)).into(), end: prefix.prefix().end };
        let rows = self.store.scan(Table::RoomTimeline, &range, Order::Descending, MAX_COUNTED_EVENTS)?;
        let ids: Vec<OwnedEventId> = rows.iter().filter_map(|(_, value)| timeline_event(value)).collect();
        self.load_events(ids.iter().map(|id| &**id))
    }

    /// How far the user has read: by receipts, and from the join if there are none.
    pub(super) fn read_positions(&self, user: &UserId, room: &RoomId) -> Result<Read, Error> {
        let mut read = Read::default();
        if let Some(joined) = self.standing(user, room)?.and_then(|standing| standing.event_id) {
            read.joined = self.joined_at(user, &joined)?;
            read.everything = read.joined;
        }
        for kind in ["m.read", "m.read.private"] {
            let prefix = Key::new().text(room).text(kind).text(user);
            for (key, value) in self.store.scan(Table::RoomReceipt, &prefix.prefix(), Order::Ascending, MAX_THREADS)? {
                let mut reader = KeyReader::new(key.get(prefix.as_bytes().len()..).unwrap_or_default());
                let thread = reader.text().unwrap_or_default();
                let Some(receipt) = value.get(8..).and_then(|json| serde_json::from_slice::<Receipt>(json).ok()) else {
                    continue;
                };
                let position = self.timeline_position(&receipt.event_id)?;
                let known = match thread.as_str() {
                    "" => &mut read.everything,
                    "main" => &mut read.main,
                    root => read.threads.entry(root.to_owned()).or_default(),
                };
                *known = (*known).max(position);
            }
        }
        Ok(read)
    }

    /// Where the user joined: a member event that only changes a name has others before it.
    fn joined_at(&self, user: &UserId, member: &EventId) -> Result<u64, Error> {
        let mut id = member.to_owned();
        let mut position = 0;
        for _ in 0..MAX_PROFILE_CHANGES {
            let Some(event) = self.load_event(&id)? else { break };
            position = event.record.timeline;
            let before = self.load_state_group(event.record.state_before)?;
            let Some(previous) = before.get(&StateKey::new("m.room.member", user.as_str())) else { break };
            let was_joined = self
                .load_event(previous)?
                .is_some_and(|previous| previous.pdu.membership_state() == Some(Membership::Join));
            if !was_joined || **previous == *id {
                break;
            }
            id = (**previous).to_owned();
        }
        Ok(position)
    }

    fn timeline_position(&self, event: &EventId) -> Result<u64, Error> {
        Ok(self.load_event(event)?.map_or(0, |event| event.record.timeline))
    }

    /// The root of the thread that an event is part of.
    pub(crate) fn thread_of(&self, event: &EventRef) -> Result<Option<OwnedEventId>, Error> {
        let mut event = Arc::clone(event);
        for _ in 0..MAX_THREAD_HOPS {
            let Some(relation) = relation_of(&event.pdu) else { return Ok(None) };
            let Some(target) = relation.event_id else { return Ok(None) };
            if relation.rel_type.as_deref() == Some("m.thread") {
                return Ok(Some(target));
            }
            match self.load_event(&target)? {
                Some(next) => event = next,
                None => return Ok(None),
            }
        }
        Ok(None)
    }
}

/// The event id in a row of the timeline.
pub(crate) fn timeline_event(value: &[u8]) -> Option<OwnedEventId> {
    let id = value.split(|byte| *byte == 0).next()?;
    std::str::from_utf8(id).ok()?.try_into().ok()
}

fn add(counts: &mut Counts, thread: Option<OwnedEventId>, highlight: bool) {
    match thread {
        Some(root) if counts.threads.len() < MAX_THREADS || counts.threads.contains_key(&root) => {
            counts.threads.entry(root).or_default().add(highlight);
        }
        _ => counts.main.add(highlight),
    }
}

/// The unread counts of a room as sync writes them, threads apart if the client wants that.
impl From<&Counts> for Value {
    fn from(counts: &Counts) -> Self {
        serde_json::json!({
            "notification_count": counts.main.notification_count,
            "highlight_count": counts.main.highlight_count,
        })
    }
}

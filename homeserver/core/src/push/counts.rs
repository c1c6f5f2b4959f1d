//! How much a user has not read, by room and thread.
//!
//! INVARIANT: a warm count holds every notifying event after the user's receipts. Those at or below its `base` were
//! found in the timeline when it was made; each later one is added, once, after it is committed: to all warm counts of
//! its room at the same moment, which `recent` tells. A count is only kept if no later one came while it was made, which
//! `latest` tells. Events that a sync may see and that were not added yet are found in the timeline by the reader.

mod cache;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use matron_room::Membership;
use matron_storage::{Key, KeyRange, KeyReader, Order, StreamPos, Table};
use ruma::{EventId, OwnedEventId, OwnedUserId, RoomId, UserId};
use serde::Deserialize;
use serde_json::Value;

use self::cache::Tail;
pub(super) use self::cache::{CountCache, Counted};
use super::{
    evaluate::{Actions, EventView, evaluate},
    new_event::RoomContext,
    worker::{Job, News},
};
use crate::{
    Core, Error,
    rooms::{StateKey, append::relation_of, record::EventRef},
    sync::timeline::timeline_of,
};

/// How far back unread events of a cold room are counted.
const MAX_COUNTED_EVENTS: usize = 2_000;

/// How many hops lead from an event to its thread's root. SPEC: "Marking notifications as read".
const MAX_THREAD_HOPS: usize = 3;

/// How many changes of a member's name are looked through for the joining.
const MAX_PROFILE_CHANGES: usize = 32;

/// How many threads are counted apart; more are counted in the main timeline.
const MAX_THREADS: usize = 1_000;

/// How many events that were just committed a reader adds to a warm count by itself; behind more it counts anew.
const MAX_TAIL: usize = 32;

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

/// Who counts, and by what.
struct Reader<'a> {
    user: &'a UserId,
    context: RoomContext,
    rules: Arc<super::CompiledRules>,
    ignored: Arc<BTreeSet<OwnedUserId>>,
    now_ms: u64,
}

/// What an event means to what a user has not read.
enum Meaning {
    /// It is not counted.
    Nothing,
    /// The user said it, in this thread.
    Own(Option<OwnedEventId>),
    /// Somebody else did, in this thread.
    Other(Option<OwnedEventId>),
}

#[derive(Deserialize)]
struct Receipt {
    event_id: OwnedEventId,
}

impl Core {
    /// What the user has not read of the room: every event that a sync may see by now is counted. Warm rooms read no disk.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn count_unread(&self, user: &UserId, room: &RoomId) -> Result<Counts, Error> {
        let tail = self.uncounted_tail(room)?;
        let (found, generation) = {
            let mut cache = self.push.counts.lock();
            (tail.and_then(|tail| cache.find(user, room, tail)), cache.generation)
        };
        if let Some((mut counts, missing)) = found
            && (missing.is_empty() || self.add_missing(&mut counts, user, room, &missing)?)
        {
            return Ok(counts);
        }
        let counts = self.count_anew(user, room)?;
        let mut cache = self.push.counts.lock();
        let latest = cache.latest.get(room).copied().unwrap_or_default();
        if cache.generation == generation && latest <= counts.base {
            cache.put(user.to_owned(), room.to_owned(), counts.clone());
        }
        Ok(counts)
    }

    /// The events that a sync may see by now and that warm counts may not hold; `None`: too many.
    fn uncounted_tail(&self, room: &RoomId) -> Result<Option<Tail>, Error> {
        let Some(counted_to) = self.push.expected.counted_to(room) else { return Ok(Some(Tail::default())) };
        let timeline = self.timeline(room)?;
        let rows = timeline.newest(timeline_of(counted_to), u64::MAX, MAX_TAIL + 1)?;
        if rows.len() > MAX_TAIL {
            return Ok(None);
        }
        Ok(Some(Tail { counted_to, events: self.load_events(rows.iter().rev().map(|row| &*row.event_id))? }))
    }

    /// The events are in the count, which was made before them. `false`: it must be counted anew.
    fn add_missing(
        &self,
        counts: &mut Counts,
        user: &UserId,
        room: &RoomId,
        missing: &[EventRef],
    ) -> Result<bool, Error> {
        let Some(reader) = self.reader(user, room)? else { return Ok(false) };
        for event in missing {
            let Some(position) = stream_position(event) else { continue };
            match self.meaning(&reader, event)? {
                Meaning::Nothing => {}
                Meaning::Own(thread) => {
                    if !counts.read_to(position, thread) {
                        return Ok(false);
                    }
                }
                Meaning::Other(thread) => {
                    if let Some(actions) = self.actions_for(user, &reader.rules, &reader.context, event)? {
                        counts.add_later(position, thread, actions.highlight);
                    }
                }
            }
        }
        Ok(true)
    }

    /// The user's receipts of the room moved, or what it holds changed: the counts are counted anew, and the user's devices wake.
    pub fn unread_changed(&self, user: &UserId, room: &RoomId) {
        self.push.forget_counts(user, &room.to_owned());
        self.tell_unread(user);
    }

    /// The user's devices wake, and are told what is unread.
    pub(crate) fn tell_unread(&self, user: &UserId) {
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

    /// The event is in the warm counts of its room.
    ///
    /// SPEC: v1.19 Client-Server API, "Marking notifications as read": what is unread ends with a receipt, or with an event
    /// that the user sent.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(super) fn count_event(&self, event: &Counted<'_>) -> Result<(), Error> {
        let changed = self.push.counts.lock().add(event);
        let Some(user) = event.said_by.filter(|_| changed) else { return Ok(()) };
        for pusher in self.pushers_of(user)?.iter().filter(|pusher| pusher.enabled) {
            self.push.jobs.add(Job { user: user.to_owned(), pusher: pusher.id(), news: News::Badge });
        }
        Ok(())
    }

    fn count_anew(&self, user: &UserId, room: &RoomId) -> Result<Counts, Error> {
        let mut counts = Counts { base: self.position(), ..Counts::default() };
        let ceiling = timeline_of(counts.base);
        let Some(reader) = self.reader(user, room)? else { return Ok(counts) };
        let read = self.read_positions(user, room)?;
        // Newest first: once the user said something, what comes next was read.
        let mut said = HashSet::new();
        for event in self.unread_events(room, read.floor())? {
            if event.record.timeline > ceiling {
                continue;
            }
            let thread = match self.meaning(&reader, &event)? {
                Meaning::Nothing => continue,
                Meaning::Own(thread) => {
                    said.insert(thread);
                    continue;
                }
                Meaning::Other(thread) => thread,
            };
            if said.contains(&thread) || read.covers(event.record.timeline, thread.as_deref()) {
                continue;
            }
            if let Some(actions) = self.actions_for(user, &reader.rules, &reader.context, &event)? {
                add(&mut counts, thread, actions.highlight);
            }
        }
        Ok(counts)
    }

    /// What counting asks of the user and the room; `None`: the room is not known.
    fn reader<'a>(&self, user: &'a UserId, room: &RoomId) -> Result<Option<Reader<'a>>, Error> {
        let Some(open) = self.find_room(room)? else { return Ok(None) };
        let context = self.push_context(&mut open.lock())?;
        let (rules, ignored) = (self.compiled_rules(user)?, self.ignored_users(user)?);
        Ok(Some(Reader { user, context, rules, ignored, now_ms: self.now_ms() }))
    }

    /// What an event of the timeline means to what the user has not read.
    fn meaning(&self, reader: &Reader<'_>, event: &EventRef) -> Result<Meaning, Error> {
        // What expired or was redacted notifies nobody.
        if !event.is_shown(reader.now_ms) || event.is_emptied() {
            return Ok(Meaning::Nothing);
        }
        if *event.pdu.sender() == *reader.user {
            let said = !event.pdu.is_state();
            return if said { Ok(Meaning::Own(self.thread_of(event)?)) } else { Ok(Meaning::Nothing) };
        }
        if reader.ignored.contains(event.pdu.sender()) {
            return Ok(Meaning::Nothing);
        }
        Ok(Meaning::Other(self.thread_of(event)?))
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

/// The position of an event that came to the end of its timeline; others were filled in before.
fn stream_position(event: &EventRef) -> Option<StreamPos> {
    event.record.timeline.checked_sub(1 << 63).map(StreamPos)
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{rooms::send::NewEvent, test_world::World};

    #[tokio::test]
    async fn an_event_that_is_not_counted_yet_is_counted_once_by_who_looks() {
        let world = World::new();
        let core = &world.core;
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let room = world.room(&[&alice, &bob]).await;
        let say = async |user: &OwnedUserId| {
            let content = json!({ "msgtype": "m.text", "body": "x" });
            core.send_event(NewEvent::message(room.clone(), user.clone(), "m.room.message", content)).await.unwrap();
        };
        let missing = || {
            let tail = core.uncounted_tail(&room).unwrap().unwrap();
            core.push.counts.lock().find(&bob, &room, tail).map(|(_, missing)| missing.len())
        };
        let unread = || core.count_unread(&bob, &room).unwrap().total().notification_count;
        say(&alice).await;
        assert_eq!(unread(), 1);
        let warm = core.push.counts.lock().find(&bob, &room, Tail::default()).unwrap().0;
        // As long as one that came before them is on its way, what came since may be counted or not.
        let _under_way = core.push.expect_event(&room, core.position());
        for _ in 0..3 {
            say(&alice).await;
        }
        assert_eq!((missing(), unread()), (Some(0), 4), "they were counted");
        core.push.counts.lock().forget_room(&room);
        core.push.counts.lock().put(bob.clone(), room.clone(), warm.clone());
        assert_eq!((missing(), unread()), (Some(3), 4), "they were not counted");
        say(&bob).await;
        core.push.counts.lock().forget_room(&room);
        core.push.counts.lock().put(bob.clone(), room.clone(), warm);
        assert_eq!((missing(), unread()), (Some(4), 0), "bob has read what came before his own");
        say(&alice).await;
        assert_eq!((missing(), unread()), (Some(4), 1), "only the last was counted");
        for _ in 0..=MAX_TAIL {
            say(&alice).await;
        }
        assert!(core.uncounted_tail(&room).unwrap().is_none(), "too many");
        assert_eq!(unread(), 2 + u64::try_from(MAX_TAIL).unwrap());
    }

    #[tokio::test]
    async fn no_count_is_kept_while_receipts_are_on_their_way_to_the_disk() {
        let world = World::new();
        let core = &world.core;
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let room = world.room(&[&alice, &bob]).await;
        let content = json!({ "msgtype": "m.text", "body": "x" });
        core.send_event(NewEvent::message(room.clone(), alice, "m.room.message", content)).await.unwrap();
        let unread = || core.count_unread(&bob, &room).unwrap().total().notification_count;
        let is_warm = || core.push.counts.lock().find(&bob, &room, Tail::default()).is_some();
        assert_eq!((unread(), is_warm()), (1, true));
        let moves = [(); 2].map(|()| core.push.begin_move(BTreeSet::from([bob.clone()]), &room));
        assert!(!is_warm(), "what was counted before");
        for moving in moves {
            assert_eq!((unread(), is_warm()), (1, false));
            drop(moving);
        }
        assert_eq!((unread(), is_warm()), (1, true));
    }
}

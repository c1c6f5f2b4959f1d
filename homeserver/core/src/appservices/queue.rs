//! What one application service has still to receive.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use matron_storage::{Key, KeyRange, KeyReader, Order, StreamPos, Table};
use parking_lot::Mutex;
use ruma::{OwnedDeviceId, OwnedEventId, OwnedRoomId, OwnedUserId};
use serde_json::Value;
use tokio::sync::Notify;

use crate::{Core, Error, rooms::EventRef};

/// How many events are queued in memory; beyond it they are read from the timelines again.
const MAX_QUEUED: usize = 10_000;

/// How much that is never stored is queued; the oldest goes first.
const MAX_EPHEMERAL: usize = 1_000;

/// How many events go into one transaction.
pub(super) const MAX_EVENTS: usize = 100;

/// How much that is never stored goes into one transaction.
pub(super) const MAX_EPHEMERAL_PER_TRANSACTION: usize = 100;

/// How many inboxes are emptied into one transaction.
const MAX_INBOXES: usize = 20;

/// Rows of all timelines, by position.
type Rows = BTreeMap<StreamPos, (OwnedRoomId, OwnedEventId)>;

/// What reading the timelines gave.
pub(super) struct Page {
    /// In order.
    pub(super) events: Vec<(StreamPos, EventRef)>,
    /// Everything up to here was looked at.
    pub(super) upto: StreamPos,
    /// Whether that is the end.
    pub(super) whole: bool,
}

/// A queue in memory.
#[derive(Debug, Default)]
pub(super) struct Queue {
    inner: Mutex<Inner>,
    pub(super) wake: Notify,
}

#[derive(Debug)]
struct Inner {
    events: BTreeMap<StreamPos, EventRef>,
    /// Events may be missing from the queue: they are read from the timelines.
    behind: bool,
    /// Everything up to here was read from the timelines; an event may be queued late, but only once.
    scanned: StreamPos,
    ephemeral: VecDeque<Value>,
    /// Whose inboxes hold something.
    inboxes: BTreeSet<Inbox>,
    /// Something may wait that is of no room of ours.
    outside: bool,
}

/// A user's device.
pub(super) type Inbox = (OwnedUserId, OwnedDeviceId);

impl Default for Inner {
    fn default() -> Self {
        // What was committed before this process began is in the timelines only.
        Self {
            events: BTreeMap::new(),
            behind: true,
            scanned: StreamPos(0),
            ephemeral: VecDeque::new(),
            inboxes: BTreeSet::new(),
            outside: true,
        }
    }
}

impl Queue {
    fn add(&self, position: StreamPos, event: &EventRef) {
        let mut inner = self.inner.lock();
        if inner.behind {
            // Found by reading, too: the reader goes on until nothing is left.
            self.wake.notify_one();
            return;
        }
        if position <= inner.scanned {
            return;
        }
        if inner.events.len() >= MAX_QUEUED {
            inner.events.clear();
            inner.behind = true;
        } else {
            inner.events.insert(position, Arc::clone(event));
        }
        self.wake.notify_one();
    }

    pub(super) fn add_ephemeral(&self, edu: Value) {
        let mut inner = self.inner.lock();
        if inner.ephemeral.len() >= MAX_EPHEMERAL {
            inner.ephemeral.pop_front();
        }
        inner.ephemeral.push_back(edu);
        self.wake.notify_one();
    }

    pub(super) fn add_inbox(&self, inbox: Inbox) {
        self.inner.lock().inboxes.insert(inbox);
        self.wake.notify_one();
    }

    pub(super) fn add_outside(&self) {
        self.inner.lock().outside = true;
        self.wake.notify_one();
    }

    /// Whether to look for what is of no room of ours; it is looked for once.
    pub(super) fn takes_outside(&self) -> bool {
        std::mem::take(&mut self.inner.lock().outside)
    }

    /// Some of the inboxes that hold something; they are looked at once.
    pub(super) fn next_inboxes(&self) -> Vec<Inbox> {
        let mut inner = self.inner.lock();
        std::iter::from_fn(|| inner.inboxes.pop_first()).take(MAX_INBOXES).collect()
    }

    /// The next events in order; `None`: they must be read from the timelines.
    pub(super) fn next_events(&self) -> Option<Vec<(StreamPos, EventRef)>> {
        let mut inner = self.inner.lock();
        if inner.behind {
            return None;
        }
        let mut events = Vec::new();
        while events.len() < MAX_EVENTS {
            match inner.events.pop_first() {
                Some(event) => events.push(event),
                None => break,
            }
        }
        Some(events)
    }

    /// From now on new events are queued. Call it before the last reading of the timelines.
    pub(super) fn catch_up(&self) {
        self.inner.lock().behind = false;
    }

    /// Everything up to `position` was read from the timelines.
    pub(super) fn scanned_to(&self, position: StreamPos) {
        let mut inner = self.inner.lock();
        inner.scanned = inner.scanned.max(position);
        let later = inner.events.split_off(&StreamPos(position.0.saturating_add(1)));
        inner.events = later;
    }

    /// What is queued may be incomplete.
    pub(super) fn fall_behind(&self) {
        let mut inner = self.inner.lock();
        inner.events.clear();
        inner.behind = true;
        inner.outside = true;
    }

    pub(super) fn next_ephemeral(&self) -> Vec<Value> {
        let mut inner = self.inner.lock();
        let count = inner.ephemeral.len().min(MAX_EPHEMERAL_PER_TRANSACTION);
        inner.ephemeral.drain(..count).collect()
    }
}

impl Core {
    /// Queues the event for every application service that it concerns. Called by the writer of rooms after the commit.
    pub(crate) fn appservices_interested(self: &Arc<Self>, event: &EventRef, joined: &imbl::OrdSet<OwnedUserId>) {
        if self.appservices.services.is_empty() {
            return;
        }
        let position = StreamPos(event.record.timeline & !(1 << 63));
        match self.services_concerned(event, joined) {
            Ok(concerned) => {
                for queue in concerned.into_iter().filter_map(|index| self.appservices.queues.get(index)) {
                    queue.add(position, event);
                }
            }
            Err(error) => {
                tracing::warn!(%error, event.id = %event.id(), "whom an event concerns could not be found");
                self.appservices.queues.iter().for_each(Queue::fall_behind);
            }
        }
    }

    /// Reads the events after `cursor` that concern a service, in order, at most `limit`.
    pub(super) fn read_for_service(
        self: &Arc<Self>,
        index: usize,
        cursor: StreamPos,
        limit: usize,
    ) -> Result<Page, Error> {
        let sampled = self.position();
        let (found, complete_to) = self.timeline_rows_after(cursor, sampled, limit)?;
        let mut events = Vec::new();
        for (position, (room, id)) in found {
            let Some(event) = self.load_event(&id)? else { continue };
            let Some(room) = self.find_room(&room)? else { continue };
            if self.services_concerned(&event, &room.joined())?.contains(&index) {
                events.push((position, event));
            }
        }
        Ok(Page { events, upto: complete_to, whole: complete_to == sampled })
    }

    /// The first `limit` rows of all timelines after `cursor`, and up to which position they are complete.
    fn timeline_rows_after(
        &self,
        cursor: StreamPos,
        sampled: StreamPos,
        limit: usize,
    ) -> Result<(Rows, StreamPos), Error> {
        let mut found = Rows::new();
        let mut complete_to = sampled;
        let mut range = KeyRange::all();
        loop {
            let rooms = self.store.scan(Table::RoomMeta, &range, Order::Ascending, 1_000)?;
            let Some((last, _)) = rooms.last() else { break };
            range = range.after(last);
            for (key, _) in &rooms {
                let Some(room) = KeyReader::new(key).text().and_then(|id| OwnedRoomId::try_from(id).ok()) else {
                    continue;
                };
                let prefix = Key::new().text(&room);
                let first = (1_u64 << 63) | cursor.0.saturating_add(1);
                let rows = KeyRange { start: prefix.clone().number(first).into(), end: prefix.prefix().end };
                for (key, value) in self.store.scan(Table::RoomTimeline, &rows, Order::Ascending, limit)? {
                    let position = key.get(prefix.as_bytes().len()..).and_then(|rest| KeyReader::new(rest).number());
                    let id = value.split(|byte| *byte == 0).next().and_then(|id| std::str::from_utf8(id).ok());
                    let id = id.and_then(|id| OwnedEventId::try_from(id).ok());
                    if let (Some(position), Some(id)) = (position, id) {
                        found.insert(StreamPos(position & !(1 << 63)), (room.clone(), id));
                    }
                }
                while found.len() > limit {
                    found.pop_last();
                    complete_to = found.last_key_value().map_or(complete_to, |(position, _)| *position);
                }
            }
        }
        found.retain(|position, _| *position <= complete_to);
        Ok((found, complete_to))
    }
}

//! Gaps in the middle of a timeline: events whose history did not come with them.
//!
//! An event that follows what is not known here leaves positions free before itself, and a mark. Who pages back over the
//! mark has the history fetched and put there; a sync that would step over it is limited.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use matron_room::Pdu;
use matron_storage::{Batch, Key, KeyReader, Order, Table};
use parking_lot::Mutex;
use ruma::{OwnedEventId, OwnedRoomId, RoomId};

use super::backfill::{Historic, Told};
use crate::{
    Core, Error,
    rooms::{
        Room,
        append::{Append, Place},
    },
};

/// How many positions are left free before an event that follows a gap.
pub(crate) const ROOM_FOR_HISTORY: u32 = 1 << 16;
/// How many gaps a room may have; a further one stays as it is.
const MAX_GAPS: usize = 1_000;
/// The most that is asked for at once.
const MAX_LIMIT: usize = 100;
/// How many marks are read at once.
const PAGE: usize = 1_000;

/// The gaps of all rooms: by room and timeline order, the event after the gap. As `misc` has them.
#[derive(Debug, Default)]
pub(crate) struct Gaps(Mutex<HashMap<OwnedRoomId, BTreeMap<u64, OwnedEventId>>>);

impl Gaps {
    /// The newest gap before an event with `low < order <= high`.
    pub(crate) fn newest_in(&self, room: &RoomId, low: u64, high: u64) -> Option<(u64, OwnedEventId)> {
        if low >= high {
            return None;
        }
        let gaps = self.0.lock();
        let (order, id) = gaps.get(room)?.range(low.saturating_add(1)..=high).next_back()?;
        Some((*order, id.clone()))
    }

    /// Whether the room may have one more.
    pub(crate) fn has_place(&self, room: &RoomId) -> bool {
        self.0.lock().get(room).is_none_or(|gaps| gaps.len() < MAX_GAPS)
    }

    pub(crate) fn note(&self, room: &RoomId, order: u64, event: OwnedEventId) {
        self.0.lock().entry(room.to_owned()).or_default().insert(order, event);
    }

    fn forget(&self, room: &RoomId, order: u64) {
        let mut gaps = self.0.lock();
        if let Some(of_room) = gaps.get_mut(room) {
            of_room.remove(&order);
            if of_room.is_empty() {
                gaps.remove(room);
            }
        }
    }
}

/// The key of the mark, but for its order.
pub(crate) fn marks_of(room: &RoomId) -> Key {
    Key::new().text("gap").text(room)
}

impl Core {
    /// The marks of all rooms are known, and their gaps are asked for again when somebody in the room is heard from.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(crate) fn start_gaps(&self) -> Result<(), Error> {
        let all = Key::new().text("gap").prefix();
        let mut range = all.clone();
        loop {
            let page = self.store.scan(Table::Misc, &range, Order::Ascending, PAGE)?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            range = all.clone().after(last);
            for (key, value) in page {
                let mut reader = KeyReader::new(&key);
                let parts = (reader.text(), reader.text(), reader.number());
                if let (_, Some(room), Some(order)) = parts
                    && let Ok(room) = <&RoomId>::try_from(room.as_str())
                    && let Some(event) = std::str::from_utf8(&value).ok().and_then(|id| id.try_into().ok())
                {
                    let event: OwnedEventId = event;
                    self.inbound.gaps.ask_again(room, event.clone(), self.now_ms());
                    self.inbound.timeline_gaps.note(room, order, event);
                }
            }
        }
    }

    /// Whether the event follows something that is not known here.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(crate) fn follows_gap(&self, pdu: &Pdu) -> Result<bool, Error> {
        for prev in pdu.prev_events() {
            if !self.is_in_graph(pdu.room_id(), prev)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The newest gap in this stretch of the timeline that is still one: what was missing may have come by itself.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(crate) fn open_gap(&self, room: &RoomId, low: u64, high: u64) -> Result<Option<(u64, OwnedEventId)>, Error> {
        while let Some((order, id)) = self.inbound.timeline_gaps.newest_in(room, low, high) {
            let open = match self.load_event(&id)? {
                Some(event) => self.follows_gap(&event.pdu)?,
                None => false,
            };
            if open {
                return Ok(Some((order, id)));
            }
            // Its mark in the store does no harm: it is looked at again after the next start.
            self.inbound.timeline_gaps.forget(room, order);
        }
        Ok(None)
    }

    /// A part of the history at the newest gap in this stretch of the timeline is here, or it is known that nobody has any
    /// and the gap is none any more; `false` if there is no gap, or nobody can be asked now.
    ///
    /// # Errors
    /// [`Error::Store`]; that nobody answers is no error.
    pub(crate) async fn fill_gap(
        self: &Arc<Self>,
        room_id: &RoomId,
        low: u64,
        high: u64,
        limit: usize,
    ) -> Result<bool, Error> {
        if self.open_gap(room_id, low, high)?.is_none() {
            return Ok(false);
        }
        let Some(room) = self.find_room(room_id)?.filter(|room| room.has_server(&self.server_name)) else {
            return Ok(false);
        };
        let turn = self.inbound.room_turn(room_id);
        let _turn = turn.lock().await;
        let Some((order, id)) = self.open_gap(room_id, low, high)? else { return Ok(true) };
        let Some(event) = self.load_event(&id)? else { return Ok(false) };
        let (mut answered, mut refused) = (false, false);
        for server in self.servers_to_ask(Some(event.pdu.sender().server_name()), &room) {
            if self.is_local(&server) {
                continue;
            }
            match self.history_before(&server, &room, &event, limit.clamp(1, MAX_LIMIT)).await {
                Ok(Told::Events(history)) => return self.place_in_gap(&room, order, history).await,
                Ok(Told::Nothing) => answered = true,
                Ok(Told::Refused) => refused = true,
                Err(error @ Error::Store(_)) => return Err(error),
                Err(error) => tracing::debug!(room.id = %room_id, peer.name = %server, %error, "no history from here"),
            }
        }
        let is_closed = answered && !refused;
        if is_closed {
            self.close_gap(room_id, order).await?;
        }
        Ok(is_closed)
    }

    /// The events stand right before `order`, as far as there is room; the mark moves with the oldest of them.
    async fn place_in_gap(
        self: &Arc<Self>,
        room: &Arc<Room>,
        order: u64,
        history: Vec<Historic>,
    ) -> Result<bool, Error> {
        let before = self.timeline_rows(room.id(), 1 << 63, order, Order::Descending, 1)?;
        let floor = before.first().map_or(1 << 63, |row| row.timeline);
        let mut mark = order;
        let mut whole = true;
        // The newest first: each goes right before the one that was placed last.
        for one in history.into_iter().rev() {
            let place = mark.saturating_sub(1);
            if place <= floor {
                // What is left of the history has no room: the gap stays where it is.
                return Ok(mark != order);
            }
            whole &= !self.follows_gap(&one.pdu)?;
            let mut with = Batch::new();
            with.delete(Table::Misc, marks_of(room.id()).number(mark));
            with.put(Table::Misc, marks_of(room.id()).number(place), one.pdu.event_id().as_bytes());
            let id = one.pdu.event_id().to_owned();
            let item = Append {
                place: Place::Gap { order: place, group_after: one.after },
                ..Append::history(one.pdu, one.before, with)
            };
            if self.append_history(room, item).await? {
                self.inbound.timeline_gaps.note(room.id(), place, id);
                self.inbound.timeline_gaps.forget(room.id(), mark);
                mark = place;
            }
        }
        if whole {
            self.close_gap(room.id(), mark).await?;
        }
        Ok(true)
    }

    async fn close_gap(&self, room: &RoomId, order: u64) -> Result<(), Error> {
        let mut batch = Batch::new();
        batch.delete(Table::Misc, marks_of(room).number(order));
        self.commit(batch).await?;
        self.inbound.timeline_gaps.forget(room, order);
        Ok(())
    }
}

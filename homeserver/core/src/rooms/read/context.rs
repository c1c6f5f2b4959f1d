//! `GET /rooms/{roomId}/context/{eventId}` and `GET /rooms/{roomId}/event/{eventId}`

use std::{collections::BTreeSet, sync::Arc};

use ruma::{EventId, RoomId, UserId};
use serde::Serialize;
use serde_json::value::RawValue;

use super::{
    messages::Found,
    token::{Direction, Gap, Stretch},
};
use crate::{
    Core, Error, Requester,
    accounts::EventFilter,
    rooms::{EventRef, StateKey},
};

/// Events around the one if the client names no number.
const DEFAULT_LIMIT: u64 = 10;
/// The most events around the one.
const MAX_LIMIT: u64 = 200;

/// An event, and what is around it.
#[derive(Debug, Serialize)]
pub struct EventContext {
    /// Where to read on backwards.
    pub start: String,
    /// Where to read on forwards.
    pub end: String,
    /// The event.
    pub event: Box<RawValue>,
    /// What came before, the nearest first.
    pub events_before: Vec<Box<RawValue>>,
    /// What came after, the nearest first.
    pub events_after: Vec<Box<RawValue>>,
    /// The state at the last of the events.
    pub state: Vec<Box<RawValue>>,
}

/// What is around an event, unwritten.
#[derive(Debug)]
pub(crate) struct Around {
    /// Nearest first.
    pub before: Vec<EventRef>,
    /// Nearest first.
    pub after: Vec<EventRef>,
    /// Before all of them.
    pub start: Gap,
    /// After all of them.
    pub end: Gap,
}

impl Core {
    /// The event, if the user may see it.
    ///
    /// # Errors
    /// [`Error::NotFound`] for an event that is unknown, of another room, or not for this user.
    pub fn visible_event(&self, user: &UserId, room: &RoomId, id: &EventId) -> Result<EventRef, Error> {
        let unknown = || Error::not_found("this event is not known, or not for you");
        let event = self.load_event(id)?.filter(|event| event.pdu.room_id() == room).ok_or_else(unknown)?;
        self.sight_of(user, room).map_err(|error| match error {
            Error::Forbidden(_) => unknown(),
            error => error,
        })?;
        if self.can_see_event(user, &event)? { Ok(event) } else { Err(unknown()) }
    }

    /// The event, of whichever room, if the user may see it.
    ///
    /// # Errors
    /// [`Error::NotFound`] for an event that is unknown, or not for this user.
    pub fn visible_event_anywhere(&self, user: &UserId, id: &EventId) -> Result<EventRef, Error> {
        let event = self.load_event(id)?.ok_or_else(|| Error::not_found("this event is not known, or not for you"))?;
        self.visible_event(user, event.pdu.room_id(), id)
    }

    /// The event and what is around it, as the user may see it.
    ///
    /// # Errors
    /// As [`Core::visible_event`]; [`Error::Forbidden`] for anyone who may not look into the room.
    pub async fn event_context(
        self: &Arc<Self>,
        requester: &Requester,
        room: &RoomId,
        id: &EventId,
        limit: Option<u64>,
        filter: &EventFilter,
    ) -> Result<EventContext, Error> {
        let user = &requester.user_id;
        self.sight_of(user, room)?;
        let event = self.visible_event(user, room, id)?;
        let limit = limit.unwrap_or(DEFAULT_LIMIT).min(MAX_LIMIT);
        let before = usize::try_from(limit / 2).unwrap_or(0);
        let after = usize::try_from(limit.saturating_sub(limit / 2)).unwrap_or(0);
        let around = self.around(user, &event, before, after, filter)?;
        let last = around.after.last().unwrap_or(&event);
        let mut keys: BTreeSet<StateKey> = BTreeSet::new();
        let state = self.state_after_event(last)?;
        let senders: BTreeSet<&str> = around
            .before
            .iter()
            .chain(&around.after)
            .chain([&event])
            .map(|event| event.pdu.sender().as_str())
            .collect();
        for key in state.keys() {
            let is_member = &*key.kind == "m.room.member";
            if !is_member || !filter.lazy_load_members || senders.contains(&*key.key) {
                keys.insert(key.clone());
            }
        }
        let state = self.load_events(keys.iter().filter_map(|key| state.get(key)).map(|id| &***id))?;
        Ok(EventContext {
            start: around.start.to_string(),
            end: around.end.to_string(),
            event: self.client_event_for(&event, user, requester.device_id.as_deref(), true)?,
            events_before: self.for_client(requester, &around.before)?,
            events_after: self.for_client(requester, &around.after)?,
            state: self.for_client(requester, &state)?,
        })
    }

    /// What is around an event, as the user may see it.
    ///
    /// # Errors
    /// [`Error::Store`], [`Error::Forbidden`].
    pub(crate) fn around(
        &self,
        user: &UserId,
        event: &EventRef,
        before: usize,
        after: usize,
        filter: &EventFilter,
    ) -> Result<Around, Error> {
        let room = event.pdu.room_id();
        let sight = self.sight_of(user, room)?;
        let at = event.record.timeline;
        let older = Stretch { room, from: Gap::START, to: Gap(at) };
        let newer = Stretch { room, from: Gap::after(at), to: sight };
        let older: Found = self.events_in(user, older, Direction::Backward, before, filter)?;
        let newer: Found = self.events_in(user, newer, Direction::Forward, after, filter)?;
        let order = |event: Option<&EventRef>| event.map_or(at, |event| event.record.timeline);
        Ok(Around {
            start: older.stopped_at.unwrap_or(Gap(order(older.events.last()))),
            end: newer.stopped_at.unwrap_or(Gap::after(order(newer.events.last()))),
            before: older.events,
            after: newer.events,
        })
    }
}

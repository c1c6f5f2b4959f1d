//! `GET /rooms/{roomId}/messages`: a room's history, page by page.

use std::{collections::BTreeSet, sync::Arc};

use matron_storage::Order;
use ruma::{OwnedUserId, RoomId, UserId};
use serde::Serialize;
use serde_json::value::RawValue;

use super::token::{Direction, Gap, Stretch};
use crate::{
    Core, Error, Requester,
    accounts::EventFilter,
    rooms::{EventRef, StateKey, StateMap, state_map::find_in, visibility::Reader},
    sync::timeline::TimelineRow,
};

/// The most events on one page.
const MAX_LIMIT: usize = 1_000;
/// Events on a page if the client names no number.
const DEFAULT_LIMIT: usize = 10;
/// How many events one request looks at before it gives what it has.
const MAX_LOOKED_AT: usize = 5_000;
/// How often one request asks other servers for more.
const MAX_BACKFILLS: usize = 3;
/// How many events it asks for at least: some are not for this reader.
const MIN_BACKFILL: usize = 50;
/// How many rows are read at once.
const PAGE: usize = 100;

/// What a client asks.
#[derive(Clone, Debug, Default)]
pub struct MessagesRequest {
    /// Where to begin; the nearest end if absent.
    pub from: Option<Gap>,
    /// Where to end.
    pub to: Option<Gap>,
    /// In which direction.
    pub direction: Direction,
    /// At most so many.
    pub limit: Option<u64>,
    /// Which events.
    pub filter: EventFilter,
}

/// A page of history.
#[derive(Debug, Serialize)]
pub struct MessagesPage {
    /// Where it begins.
    pub start: String,
    /// Where to go on; absent at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end: Option<String>,
    /// The events, in the direction that was asked for.
    pub chunk: Vec<Box<RawValue>>,
    /// The member events that the chunk needs, for clients that load them lazily.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub state: Vec<Box<RawValue>>,
}

/// Events found in a stretch.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// In the direction that was asked for.
    pub events: Vec<EventRef>,
    /// Where the walk stopped, if there is more.
    pub stopped_at: Option<Gap>,
}

impl Core {
    /// A page of the room's history, as the user may see it.
    ///
    /// # Errors
    /// [`Error::Forbidden`] for anyone who never was in the room, unless it is world readable.
    pub async fn room_messages(
        self: &Arc<Self>,
        requester: &Requester,
        room: &RoomId,
        request: &MessagesRequest,
    ) -> Result<MessagesPage, Error> {
        let user = &requester.user_id;
        let sight = self.sight_of(user, room)?;
        let limit = request.limit.or(request.filter.limit);
        let limit = limit.map_or(DEFAULT_LIMIT, |limit| usize::try_from(limit).unwrap_or(MAX_LIMIT)).min(MAX_LIMIT);
        let backward = request.direction == Direction::Backward;
        let start = match request.from {
            Some(from) => from,
            None if backward => Gap::after((1 << 63) | self.position().0).min(sight),
            None => Gap::START,
        };
        let stretch = |start: Gap| {
            if backward {
                Stretch { room, from: request.to.unwrap_or(Gap::START), to: start.min(sight) }
            } else {
                Stretch { room, from: start, to: request.to.unwrap_or(Gap::END).min(sight) }
            }
        };
        let mut found = self.events_in(user, stretch(start), request.direction, limit, &request.filter)?;
        for question in 0..=MAX_BACKFILLS {
            // A gap on the way is filled before anything behind it is shown.
            let low = found.stopped_at.unwrap_or(stretch(start).from);
            let high = start.min(sight);
            if question == MAX_BACKFILLS
                && backward
                && let Some((order, _)) = self.open_gap(room, low.0, high.0)?
            {
                // More than one page's worth of questions: the next page begins at what is left of the gap.
                let rest = Stretch { room, from: Gap(order), to: high };
                found = self.events_in(user, rest, request.direction, limit, &request.filter)?;
                found.stopped_at = Some(found.stopped_at.unwrap_or(Gap(order)));
                break;
            }
            let lacking = limit.saturating_sub(found.events.len()).max(MIN_BACKFILL);
            if !backward || !self.fill_gap(room, low.0, high.0, lacking).await? {
                break;
            }
            found = self.events_in(user, stretch(start), request.direction, limit, &request.filter)?;
        }
        let mut more_elsewhere = backward && self.may_backfill(room)?;
        for _ in 0..MAX_BACKFILLS {
            if !more_elsewhere || found.stopped_at.is_some() || found.events.len() >= limit {
                break;
            }
            // What is here ends; another server may have more.
            let lacking = limit.saturating_sub(found.events.len());
            more_elsewhere = self.backfill(room, lacking.max(MIN_BACKFILL)).await? > 0;
            if more_elsewhere {
                found = self.events_in(user, stretch(start), request.direction, limit, &request.filter)?;
            }
        }
        let end = match request.direction {
            Direction::Backward if more_elsewhere => {
                let first = self.rows_between(room, Gap::START, Gap::END, Direction::Forward, 1)?;
                found.stopped_at.or(first.first().map(|row| Gap(row.timeline)))
            }
            // The page that is empty is the last: some clients take a page without `end` for a failure.
            Direction::Backward => found.stopped_at.or(found.events.last().map(|event| Gap(event.record.timeline))),
            // More may be said.
            Direction::Forward => {
                found.stopped_at.or(found.events.last().map(|event| Gap::after(event.record.timeline)))
            }
        };
        let state = if request.filter.lazy_load_members { self.members_for(&found.events)? } else { Vec::new() };
        Ok(MessagesPage {
            start: start.to_string(),
            end: end.map(|gap| gap.to_string()),
            chunk: self.for_client(requester, &found.events)?,
            state: self.for_client(requester, &state)?,
        })
    }

    /// Up to which gap the user may look in the room at all.
    ///
    /// # Errors
    /// [`Error::Forbidden`] for anyone who never was in the room, unless it is world readable.
    pub(crate) fn sight_of(&self, user: &UserId, room_id: &RoomId) -> Result<Gap, Error> {
        let refused = || Error::forbidden("you are not in this room");
        let room = self.find_room(room_id)?.ok_or_else(refused)?;
        if room.lock().joined.contains(user) || self.is_open_to_the_world(&room)? {
            return Ok(Gap::END);
        }
        // INVARIANT: this also decides who may look: those who left see up to their leaving.
        self.visible_state(user, room_id)?;
        let leaving = self.standing(user, room_id)?.and_then(|standing| standing.event_id).ok_or_else(refused)?;
        let leaving = self.load_event(&leaving)?.ok_or_else(refused)?;
        Ok(Gap::after(leaving.record.timeline))
    }

    /// The events of a stretch that the user may see and the filter lets through.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(crate) fn events_in(
        &self,
        user: &UserId,
        stretch: Stretch<'_>,
        direction: Direction,
        limit: usize,
        filter: &EventFilter,
    ) -> Result<Found, Error> {
        let ignored = self.ignored_users(user)?;
        let mut reader = Reader::new(user);
        self.events_where(stretch, direction, limit, |event| {
            Ok((event.pdu.is_state() || !ignored.contains(event.pdu.sender()))
                && self.filter_allows(filter, event)?
                && self.reader_can_see(&mut reader, event)?)
        })
    }

    /// The events of a stretch that `keep` lets through.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(crate) fn events_where(
        &self,
        stretch: Stretch<'_>,
        direction: Direction,
        limit: usize,
        mut keep: impl FnMut(&EventRef) -> Result<bool, Error>,
    ) -> Result<Found, Error> {
        let now_ms = self.now_ms();
        let (mut low, mut high) = (stretch.from, stretch.to);
        let mut found = Found::default();
        let mut looked_at = 0_usize;
        while low < high {
            let rows = self.rows_between(stretch.room, low, high, direction, PAGE)?;
            let full = rows.len() == PAGE;
            for row in rows {
                if found.events.len() >= limit || looked_at >= MAX_LOOKED_AT {
                    found.stopped_at = Some(if direction == Direction::Backward { high } else { low });
                    return Ok(found);
                }
                looked_at = looked_at.saturating_add(1);
                match direction {
                    Direction::Backward => high = Gap(row.timeline),
                    Direction::Forward => low = Gap::after(row.timeline),
                }
                if let Some(event) = self.load_event(&row.event_id)?
                    && event.is_shown(now_ms)
                    && keep(&event)?
                {
                    found.events.push(event);
                }
            }
            if !full {
                break;
            }
        }
        Ok(found)
    }

    /// The rows between two gaps.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(crate) fn rows_between(
        &self,
        room: &RoomId,
        from: Gap,
        to: Gap,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<TimelineRow>, Error> {
        let order = if direction == Direction::Backward { Order::Descending } else { Order::Ascending };
        // `timeline_rows` leaves its lower end out.
        self.timeline_rows(room, from.0.saturating_sub(1), to.0, order, limit)
    }

    /// The member events of those who sent these events, as of the first of them.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(crate) fn members_for(&self, events: &[EventRef]) -> Result<Vec<EventRef>, Error> {
        let Some(first) = events.first() else { return Ok(Vec::new()) };
        let state = self.state_after_event(first)?;
        let senders: BTreeSet<OwnedUserId> = events.iter().map(|event| event.pdu.sender().to_owned()).collect();
        let ids =
            senders.iter().filter_map(|sender| find_in(&state, "m.room.member", sender.as_str())).map(|id| &***id);
        self.load_events(ids)
    }

    /// The state after an event, at its own place in the graph.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(crate) fn state_after_event(&self, event: &EventRef) -> Result<StateMap, Error> {
        let mut state = self.load_state_group(event.record.state_before)?;
        if let Some(key) = event.pdu.state_key() {
            state.insert(StateKey::new(event.pdu.kind(), key), Arc::new(event.id().to_owned()));
        }
        Ok(state)
    }

    /// The events in client form.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn for_client(&self, requester: &Requester, events: &[EventRef]) -> Result<Vec<Box<RawValue>>, Error> {
        let device = requester.device_id.as_deref();
        let mut reader = Reader::new(&requester.user_id);
        events.iter().map(|event| self.client_event_to(&mut reader, event, device, true)).collect()
    }

    /// Whether another server may have more of the room's history.
    fn may_backfill(&self, room: &RoomId) -> Result<bool, Error> {
        if !self.settings.federation {
            return Ok(false);
        }
        Ok(self.find_room(room)?.is_some_and(|room| {
            let servers = room.servers();
            servers.len() > 1 && servers.contains(&self.server_name)
        }))
    }
}

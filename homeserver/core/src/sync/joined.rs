//! What a sync tells of a joined room.

use std::{collections::BTreeSet, sync::Arc};

use matron_room::Membership;
use matron_storage::{Key, KeyReader, StreamPos, Table};
use ruma::{OwnedUserId, RoomId, UserId};
use serde::Deserialize;
use serde_json::{
    json,
    value::{RawValue, to_raw_value},
};

use super::{
    Ignored,
    answer::{Events, JoinedRoom, Summary, Timeline},
    build::Span,
    timeline::Window,
};
use crate::{
    Core, Error, Requester,
    accounts::{EventFilter, EventFormat},
    rooms::{
        EventRef, Room, StateKey, StateMap,
        members::{HEROES, UserRoom},
        state_map::find_in,
        visibility::Reader,
    },
};

/// Timeline events per room if the filter names no limit.
const DEFAULT_LIMIT: u64 = 10;
/// The most that a filter may ask for.
const MAX_LIMIT: u64 = 1000;

impl Core {
    /// What is new in a room that the user is joined to; empty if nothing is.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(super) fn joined_room(
        self: &Arc<Self>,
        requester: &Requester,
        room: &Arc<Room>,
        standing: &UserRoom,
        span: &Span<'_>,
        ignored: &Ignored,
    ) -> Result<JoinedRoom, Error> {
        let user = &requester.user_id;
        // A membership that changed since may have ended between: then each event is looked at.
        let stayed = standing.membership == Membership::Join
            && span.since.is_some_and(|since| standing.position <= since.stream);
        let group_then = match span.since {
            Some(since) => Some(self.timeline(room.id())?.group_as_of(since.stream)?),
            None => None,
        };
        let was_joined = match group_then {
            Some(group) => stayed || self.membership_in(&self.load_state_group(group)?, user)? == Membership::Join,
            None => false,
        };
        // A room that is new to the client is told from its beginning.
        let after = span.since.filter(|_| was_joined).map(|since| since.stream);
        let whole = after.is_none() || span.request.full_state;
        if after.is_none() {
            self.forget_told(requester, room.id());
        }

        let filter = &span.request.filter.room.timeline;
        let limit = limit_of(filter);
        let current = room.current();
        let mut reader = Reader::new(user);
        let window = self.window(room.id(), after, span.to, limit, |event| {
            self.is_told(&mut reader, event, filter, ignored, stayed, &current)
        })?;

        let state_then = match group_then.filter(|_| !whole) {
            Some(group) if group == window.group_at_end => Some(window.state_at_end.clone()),
            Some(group) => Some(self.load_state_group(group)?),
            None => None,
        };
        let state = self.state_of_window(requester, room, span, &window, state_then.as_ref())?;
        let mut told = JoinedRoom {
            timeline: self.timeline_of_window(requester, span, &window, &mut reader)?,
            ..JoinedRoom::default()
        };
        let state_filter = &span.request.filter.room.state;
        for event in &state {
            if state_filter.allows(event.pdu.kind(), Some(event.pdu.sender())) {
                told.state.events.push(self.told_event(requester, span, event, &mut reader)?);
            }
        }
        let members_changed = state.iter().chain(&window.events).any(|event| event.pdu.kind() == "m.room.member");
        if whole || members_changed {
            told.summary = self.summary(room, user)?;
        }
        if span.since.is_some() && after.is_none() {
            // What the client may hold of an earlier stay does not end where this begins.
            told.timeline.limited = true;
            told.newcomers = room.joined().iter().cloned().collect();
        } else {
            told.newcomers = newcomers(state.iter().chain(&window.events));
        }
        told.ephemeral = self.ephemeral(user, room.id(), span, after.is_none(), ignored)?;
        let counts = self.unread_counts(user, room.id(), filter.unread_thread_notifications)?;
        told.unread_notifications = counts.0;
        told.unread_thread_notifications = counts.1;
        Ok(told)
    }

    /// Whether the user is told of the event in a timeline.
    pub(super) fn is_told(
        &self,
        reader: &mut Reader<'_>,
        event: &EventRef,
        filter: &EventFilter,
        ignored: &Ignored,
        stayed: bool,
        current: &StateMap,
    ) -> Result<bool, Error> {
        let pdu = &event.pdu;
        if !pdu.is_state() && ignored.contains(pdu.sender()) {
            return Ok(false);
        }
        if !filter.is_open() {
            let has_url = filter.contains_url.is_some() && pdu.content_value().get("url").is_some();
            if !filter.allows(pdu.kind(), Some(pdu.sender()))
                || !filter.allows_url(has_url)
                || !filter.allows_room(pdu.room_id())
            {
                return Ok(false);
            }
        }
        // Whoever was joined all the time since the last answer may see all that lies between.
        if (stayed && self.policy_lets_reader_read(reader, event)?) || self.reader_can_see(reader, event)? {
            return Ok(true);
        }
        // The current state is every member's to know, whenever it was set.
        Ok(pdu.state_key().and_then(|key| find_in(current, pdu.kind(), key)).is_some_and(|id| &***id == event.id()))
    }

    /// The state that goes before the window: all of it, or what changed since `then`.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(super) fn state_of_window(
        &self,
        requester: &Requester,
        room: &Room,
        span: &Span<'_>,
        window: &Window,
        then: Option<&StateMap>,
    ) -> Result<Vec<EventRef>, Error> {
        let filter = &span.request.filter.room.state;
        let mut beside = window.state_beside(then);
        if filter.lazy_load_members {
            let in_timeline: BTreeSet<_> = window.events.iter().map(|event| event.id()).collect();
            let mut wanted: BTreeSet<OwnedUserId> =
                window.events.iter().map(|event| event.pdu.sender().to_owned()).collect();
            let own = StateKey::new("m.room.member", requester.user_id.as_str());
            if then.is_none() || beside.contains_key(&own) {
                wanted.insert(requester.user_id.clone());
            }
            // Members that changed in a gap are told, lazily or not: the client would never learn of it otherwise.
            let changed: BTreeSet<OwnedUserId> = beside
                .keys()
                .filter(|key| then.is_some() && window.limited && &*key.kind == "m.room.member")
                .filter_map(|key| OwnedUserId::try_from(&*key.key).ok())
                .collect();
            beside.retain(|key, _| &*key.kind != "m.room.member");
            let state = &window.state_at_start;
            let mut told = self.untold_members(requester, room.id(), filter, state, wanted);
            told.extend(changed);
            for member in told {
                let key = StateKey::new("m.room.member", member.as_str());
                let id = window
                    .state_at_end
                    .get(&key)
                    .filter(|id| !in_timeline.contains(&****id))
                    .or_else(|| state.get(&key));
                if let Some(id) = id.filter(|id| !in_timeline.contains(&****id)) {
                    beside.insert(key, Arc::clone(id));
                }
            }
        }
        let mut state = Vec::with_capacity(beside.len());
        for id in beside.values() {
            state.extend(self.load_event(id)?);
        }
        Ok(state)
    }

    /// The event in the form that the filter asks for.
    pub(super) fn told_event(
        &self,
        requester: &Requester,
        span: &Span<'_>,
        event: &EventRef,
        reader: &mut Reader<'_>,
    ) -> Result<Box<RawValue>, Error> {
        if span.request.filter.event_format == Some(EventFormat::Federation) {
            let mut whole: serde_json::Map<String, serde_json::Value> = serde_json::from_str(event.pdu.json().get())
                .map_err(|error| Error::internal(format!("a stored event is no object: {error}")))?;
            whole.insert("event_id".to_owned(), json!(event.id()));
            whole.insert("room_id".to_owned(), json!(event.pdu.room_id()));
            return raw(&serde_json::Value::Object(whole));
        }
        self.client_event_to(reader, event, requester.device_id.as_deref(), false)
    }

    pub(super) fn timeline_of_window(
        &self,
        requester: &Requester,
        span: &Span<'_>,
        window: &Window,
        reader: &mut Reader<'_>,
    ) -> Result<Timeline, Error> {
        let prev_batch = Some(window.prev_batch_or_end());
        let mut timeline = Timeline { limited: window.limited, prev_batch, ..Timeline::default() };
        for event in &window.events {
            timeline.events.push(self.told_event(requester, span, event, reader)?);
        }
        Ok(timeline)
    }

    /// The user's membership in a state.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(crate) fn membership_in(&self, state: &StateMap, user: &UserId) -> Result<Membership, Error> {
        let Some(id) = find_in(state, "m.room.member", user.as_str()) else { return Ok(Membership::Leave) };
        Ok(self.load_event(id)?.and_then(|event| event.pdu.membership_state()).unwrap_or(Membership::Leave))
    }

    /// Counts, and the members whose names make up the room's.
    fn summary(&self, room: &Room, user: &UserId) -> Result<Summary, Error> {
        let joined = room.joined();
        let crowd = self.crowd(room.id())?;
        let state = room.current();
        let named = ["m.room.name", "m.room.canonical_alias"].iter().any(|kind| find_in(&state, kind, "").is_some());
        let others = |users: &[OwnedUserId]| -> Vec<OwnedUserId> {
            users.iter().filter(|member| &***member != user).take(HEROES).cloned().collect()
        };
        let mut heroes = others(&crowd.present);
        if heroes.is_empty() {
            heroes = others(&crowd.gone);
        }
        Ok(Summary {
            heroes: (!named).then_some(heroes),
            joined: u64::try_from(joined.len()).ok(),
            invited: u64::try_from(crowd.invited).ok(),
        })
    }

    /// Receipts and typing that the client was not told.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(super) fn ephemeral(
        &self,
        user: &UserId,
        room: &RoomId,
        span: &Span<'_>,
        new: bool,
        ignored: &Ignored,
    ) -> Result<Events, Error> {
        let filter = &span.request.filter.room.ephemeral;
        let mut events = Events::default();
        if filter.allows_type("m.receipt") {
            let after = span.since.filter(|_| !new).map_or(StreamPos(0), |since| since.stream);
            events.events.extend(self.receipts_between(user, room, after, span.to, ignored)?);
        }
        if filter.allows_type("m.typing") {
            let (serial, users) = self.typing_in(room);
            let told = span.since.filter(|_| !new).map_or(0, |since| since.ephemeral);
            if serial > told && serial <= span.ephemeral {
                let users: Vec<_> = users.into_iter().filter(|user| !ignored.contains(user)).collect();
                events.events.push(raw(&json!({"type": "m.typing", "content": {"user_ids": users}}))?);
            }
        }
        Ok(events)
    }

    /// One `m.receipt` event with the receipts of the room in `(after, to]` that the user may see.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(crate) fn receipts_between(
        &self,
        user: &UserId,
        room: &RoomId,
        after: StreamPos,
        to: StreamPos,
        ignored: &Ignored,
    ) -> Result<Option<Box<RawValue>>, Error> {
        #[derive(Deserialize)]
        struct Row {
            event_id: String,
            ts: u64,
        }
        let scope = Key::new().text(room);
        let mark = self.store.mark(Table::RoomReceipt, scope.as_bytes());
        let none = self.rooms.without_receipts.find(room, mark).unwrap_or(false);
        if none || mark.position <= after {
            return Ok(None);
        }
        let rows = self.scan_all(Table::RoomReceipt, &scope)?;
        self.rooms.without_receipts.put(room.to_owned(), mark, rows.is_empty());
        let mut content = serde_json::Map::new();
        for (key, value) in rows {
            let Some((position, body)) = value.split_first_chunk::<8>() else { continue };
            let position = StreamPos(u64::from_be_bytes(*position));
            if position <= after || position > to {
                continue;
            }
            let mut reader = KeyReader::new(&key);
            let (Some(_), Some(kind), Some(reader_id), Some(thread)) =
                (reader.text(), reader.text(), reader.text(), reader.text())
            else {
                continue;
            };
            let private = kind == "m.read.private";
            if kind == "m.fully_read" || (private && reader_id != user.as_str()) {
                continue;
            }
            if <&UserId>::try_from(reader_id.as_str()).is_ok_and(|id| ignored.contains(id)) {
                continue;
            }
            let row: Row = crate::house::from_json(Table::RoomReceipt, body)?;
            let mut data = json!({"ts": row.ts});
            if !thread.is_empty() {
                data["thread_id"] = json!(thread);
            }
            let entry = content.entry(row.event_id).or_insert_with(|| json!({}));
            entry[kind][reader_id] = data;
        }
        if content.is_empty() {
            return Ok(None);
        }
        raw(&json!({"type": "m.receipt", "content": content})).map(Some)
    }
}

/// How many events of a timeline are told.
pub(super) fn limit_of(filter: &EventFilter) -> usize {
    usize::try_from(filter.limit.unwrap_or(DEFAULT_LIMIT).min(MAX_LIMIT)).unwrap_or(usize::MAX)
}

/// The users whose joining is among these events.
fn newcomers<'a>(events: impl Iterator<Item = &'a EventRef>) -> BTreeSet<OwnedUserId> {
    events
        .filter(|event| event.pdu.membership_state() == Some(Membership::Join))
        .filter_map(|event| event.pdu.state_key()?.try_into().ok())
        .collect()
}

pub(super) fn raw(value: &impl serde::Serialize) -> Result<Box<RawValue>, Error> {
    to_raw_value(value).map_err(|error| Error::internal(format!("a value has no JSON form: {error}")))
}

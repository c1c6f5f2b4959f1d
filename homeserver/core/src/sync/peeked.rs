//! What a sync tells of rooms that the device looks into from outside (MSC2753).

use std::sync::Arc;

use matron_room::{HistoryVisibility, Membership};
use matron_storage::StreamPos;

use super::{
    Ignored,
    answer::{JoinedRoom, LeftRoom, Rooms},
    build::Span,
    joined::limit_of,
};
use crate::{
    Core, Error, Requester,
    peeks::Peek,
    rooms::{Room, visibility::Reader},
};

impl Core {
    /// Adds the rooms that the device looks into, and those into which it has stopped to.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(super) fn add_peeks(
        self: &Arc<Self>,
        requester: &Requester,
        span: &Span<'_>,
        ignored: &Ignored,
        rooms: &mut Rooms,
    ) -> Result<(), Error> {
        for (room_id, peek) in self.peeks_of(requester) {
            if !peek.is_known_at(span.to) || !span.request.filter.room.allows_room(&room_id) {
                continue;
            }
            let room = self.room_of_ours(&room_id)?;
            if let Some(over) = peek.over_at(span.to) {
                // An invite or a knock meanwhile is not taken back by the end of a look from outside.
                let standing = self.standing(&requester.user_id, &room_id)?.map(|standing| standing.membership);
                let is_at_the_door = matches!(standing, Some(Membership::Invite | Membership::Knock));
                if !is_at_the_door && span.since.is_some_and(|since| since.stream < over) {
                    let told = match room {
                        Some(room) => self.room_peeked_into(requester, &room, span, ignored, peek, over)?,
                        // Nobody of this server is in it any more, and what was said last is not ours to tell.
                        None => LeftRoom::default(),
                    };
                    rooms.leave.entry(room_id).or_insert(told);
                }
            } else if let Some(room) = room
                && !rooms.join.contains_key(&room_id)
                && let Some(told) = self.peeked_room(requester, &room, span, ignored, peek)?
            {
                rooms.peek.insert(room_id, told);
            }
        }
        Ok(())
    }

    /// What is new in a room that the device looks into.
    fn peeked_room(
        self: &Arc<Self>,
        requester: &Requester,
        room: &Arc<Room>,
        span: &Span<'_>,
        ignored: &Ignored,
        peek: Peek,
    ) -> Result<Option<JoinedRoom>, Error> {
        let user = &requester.user_id;
        // INVARIANT: one look at the state says that the room is open and what of the state may be told.
        let current = room.current();
        if self.history_visibility_in(&current)? != HistoryVisibility::WorldReadable || self.is_governed(&current) {
            return Ok(None);
        }
        let after = span.since.filter(|since| peek.is_known_at(since.stream)).map(|since| since.stream);
        let whole = after.is_none() || span.request.full_state;
        if after.is_none() {
            self.forget_told(requester, room.id());
        }
        let then = after.filter(|_| !whole).map(|after| self.state_as_of(room.id(), after)).transpose()?;
        let filter = &span.request.filter.room;
        let mut reader = Reader::new(user);
        let window = self.window(room.id(), after, span.to, limit_of(&filter.timeline), |event| {
            self.is_told(&mut reader, event, &filter.timeline, ignored, false, &current)
        })?;
        let mut told = JoinedRoom {
            timeline: self.timeline_of_window(requester, span, &window, &mut reader)?,
            ..JoinedRoom::default()
        };
        for event in self.state_of_window(requester, room, span, &window, then.as_ref())? {
            if self.is_told(&mut reader, &event, &filter.state, ignored, false, &current)? {
                told.state.events.push(self.told_event(requester, span, &event, &mut reader)?);
            }
        }
        told.ephemeral = self.ephemeral(user, room.id(), span, after.is_none(), ignored)?;
        told.timeline.limited |= span.since.is_some() && after.is_none();
        Ok((whole || !told.is_empty()).then_some(told))
    }

    /// What was still seen of a room before the look into it was over.
    fn room_peeked_into(
        self: &Arc<Self>,
        requester: &Requester,
        room: &Arc<Room>,
        span: &Span<'_>,
        ignored: &Ignored,
        peek: Peek,
        over: StreamPos,
    ) -> Result<LeftRoom, Error> {
        let filter = &span.request.filter.room.timeline;
        let since = span.since.map_or(0, |since| since.stream.0).max(peek.began);
        let mut reader = Reader::new(&requester.user_id);
        let window = self.window(room.id(), Some(StreamPos(since)), over, limit_of(filter), |event| {
            let seen = event.pdu.is_state() || !ignored.contains(event.pdu.sender());
            Ok(seen
                && filter.allows(event.pdu.kind(), Some(event.pdu.sender()))
                && self.reader_can_see(&mut reader, event)?)
        })?;
        Ok(LeftRoom {
            timeline: self.timeline_of_window(requester, span, &window, &mut reader)?,
            ..LeftRoom::default()
        })
    }
}

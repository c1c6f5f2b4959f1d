//! What a sync tells of rooms that the user is not joined to: invites, knocks, and rooms that were left.

use std::sync::Arc;

use matron_room::{Membership, Unsigned, stripped_event, sync_event};
use matron_storage::{Key, StreamPos, Table};
use ruma::{OwnedRoomId, RoomId};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    Ignored,
    answer::{Events, InvitedRoom, KnockedRoom, LeftRoom, Rooms},
    build::Span,
    timeline::timeline_of,
};
use crate::{
    Core, Error, Requester,
    rooms::{UserRoom, visibility::Reader},
};

#[derive(Default, Deserialize)]
#[serde(default)]
struct Stripped {
    invite_state: Vec<Box<RawValue>>,
    knock_state: Vec<Box<RawValue>>,
}

impl Core {
    /// Adds what changed of a room that the user is not joined to.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(super) fn other_room(
        self: &Arc<Self>,
        requester: &Requester,
        room_id: &OwnedRoomId,
        standing: &UserRoom,
        span: &Span<'_>,
        ignored: &Ignored,
        rooms: &mut Rooms,
    ) -> Result<(), Error> {
        let is_new = span.since.is_none_or(|since| standing.position > since.stream) && standing.position <= span.to;
        match standing.membership {
            Membership::Join => {}
            Membership::Invite => {
                let from_ignored = standing.sender.as_ref().is_some_and(|sender| ignored.contains(sender));
                if (is_new || span.request.full_state) && !from_ignored {
                    let invite_state = Events { events: self.stripped_for(requester, room_id, false)? };
                    rooms.invite.insert(room_id.clone(), InvitedRoom { invite_state });
                }
            }
            Membership::Knock => {
                if is_new || span.request.full_state {
                    let knock_state = Events { events: self.stripped_for(requester, room_id, true)? };
                    rooms.knock.insert(room_id.clone(), KnockedRoom { knock_state });
                }
            }
            Membership::Leave | Membership::Ban => {
                let told_at_first = span.since.is_some() || span.request.filter.room.include_leave;
                if is_new && !standing.forgotten && told_at_first {
                    rooms.leave.insert(room_id.clone(), self.left_room(requester, room_id, standing, span)?);
                }
            }
        }
        Ok(())
    }

    /// The stripped state of an invite or a knock: of the room itself if this server is in it, else as it came.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(crate) fn stripped_for(
        &self,
        requester: &Requester,
        room_id: &RoomId,
        knock: bool,
    ) -> Result<Vec<Box<RawValue>>, Error> {
        let user = &requester.user_id;
        if let Some(room) = self.find_room(room_id)?.filter(|room| room.has_server(&self.server_name)) {
            let mut inner = room.lock();
            let mut events = self.stripped_state_events(&mut inner)?;
            let own = inner.state_pdu(self, "m.room.member", user.as_str())?;
            if let Some(own) = own {
                if own.sender() != user {
                    events.extend(inner.state_pdu(self, "m.room.member", own.sender().as_str())?);
                }
                events.push(own);
            }
            return Ok(events.iter().map(stripped_event).collect());
        }
        let stored: Option<Stripped> = self.load(Table::RoomStripped, &Key::new().text(user).text(room_id))?;
        Ok(stored.map(|stored| if knock { stored.knock_state } else { stored.invite_state }).unwrap_or_default())
    }

    /// A room that was left while this server was not in it: the leaving, if it is known.
    fn left_outside(&self, requester: &Requester, room_id: &RoomId) -> Result<LeftRoom, Error> {
        let mut left = LeftRoom::default();
        if let Some(leave) = self.outside_leave(&requester.user_id, room_id)? {
            left.timeline.events.push(sync_event(&leave, &Unsigned::default()));
        }
        Ok(left)
    }

    fn left_room(
        &self,
        requester: &Requester,
        room_id: &RoomId,
        standing: &UserRoom,
        span: &Span<'_>,
    ) -> Result<LeftRoom, Error> {
        let user = &requester.user_id;
        if self.find_room(room_id)?.is_none() {
            return self.left_outside(requester, room_id);
        }
        // A leaving that is not in the timeline (an invite refused elsewhere) has nothing to show.
        let rows = self.timeline_rows(
            room_id,
            timeline_of(standing.position).saturating_sub(1),
            timeline_of(standing.position).saturating_add(1),
            matron_storage::Order::Ascending,
            1,
        )?;
        if rows.is_empty() {
            return self.left_outside(requester, room_id);
        }
        let state_then = match span.since {
            Some(since) => Some(self.state_as_of(room_id, since.stream)?),
            None => None,
        };
        let was_joined = match &state_then {
            Some(state) => self.membership_in(state, user)? == Membership::Join,
            None => false,
        };
        let after = span.since.filter(|_| was_joined).map(|since| since.stream);
        let filter = &span.request.filter.room.timeline;
        let limit = usize::try_from(filter.limit.unwrap_or(10).min(1000)).unwrap_or(1000);
        let window = self.window(room_id, after, StreamPos(standing.position.0), limit, |event| {
            Ok(filter.allows(event.pdu.kind(), Some(event.pdu.sender()))
                && (Some(event.id()) == standing.event_id.as_deref() || self.can_see_event(user, event)?))
        })?;
        let mut reader = Reader::new(user);
        let mut left = LeftRoom {
            timeline: self.timeline_of_window(requester, span, &window, &mut reader)?,
            ..LeftRoom::default()
        };
        // Who was never joined learns only of the own leaving.
        let may_see_state = was_joined || self.visible_state(user, room_id).is_ok();
        if may_see_state {
            let then = state_then.filter(|_| was_joined);
            for (key, id) in window.state_beside(then.as_ref()) {
                if !span.request.filter.room.state.allows_type(&key.kind) {
                    continue;
                }
                if let Some(event) = self.load_event(&id)? {
                    left.state.events.push(self.told_event(requester, span, &event, &mut reader)?);
                }
            }
        }
        Ok(left)
    }
}

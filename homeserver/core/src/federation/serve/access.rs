//! Which server may read which room and event.

use std::sync::Arc;

use matron_room::{Membership, Pdu};
use ruma::{EventId, OwnedEventId, RoomId, ServerName, UserId};

use crate::{
    Core, Error,
    rooms::{EventRef, Room, StateMap, Status, state_map::find_in},
};

/// At how many events is looked to find where a server came into a room.
const MAX_LOOKS: usize = 500;

/// A room and a server that may read in it. Only [`Core::reader_of`] makes one.
#[derive(Debug)]
pub struct Reader<'a> {
    core: &'a Core,
    server: &'a ServerName,
    room: Arc<Room>,
    /// Whether the server is in the room now.
    is_in_room: bool,
}

impl Core {
    /// What the server may read in the room.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a room that this server is not in; [`Error::Forbidden`] by the room's access control list.
    pub fn reader_of<'a>(&'a self, server: &'a ServerName, room_id: &RoomId) -> Result<Reader<'a>, Error> {
        let room = self.room_for_peer(server, room_id)?;
        let is_in_room = room.has_server(server);
        Ok(Reader { core: self, server, room, is_in_room })
    }
}

impl Reader<'_> {
    /// The room.
    #[must_use]
    pub fn room(&self) -> &Arc<Room> {
        &self.room
    }

    /// Nothing, if the server is in the room now.
    ///
    /// # Errors
    /// [`Error::Forbidden`].
    pub fn require_in_room(&self) -> Result<(), Error> {
        if self.is_in_room { Ok(()) } else { Err(refused()) }
    }

    /// Where the server came in: the least deep of the joins by which its users are in the room. It has that event, and the
    /// state before it. None if that cannot be said with a bounded look: then much has happened since.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn arrival(&self) -> Result<Option<OwnedEventId>, Error> {
        let (joined, state) = {
            let inner = self.room.lock();
            (inner.joined.clone(), inner.current.clone())
        };
        let mut looks = MAX_LOOKS;
        let mut least: Option<EventRef> = None;
        for user in joined.iter().filter(|user| user.server_name() == self.server) {
            let Some(id) = find_in(&state, "m.room.member", user.as_str()) else { continue };
            let Some(join) = self.first_join(id, &mut looks)? else { return Ok(None) };
            if least.as_ref().is_none_or(|least| join.pdu.depth() < least.pdu.depth()) {
                least = Some(join);
            }
        }
        Ok(least.map(|join| join.id().to_owned()))
    }

    /// The join that this one goes back to by changes of name and picture: each is authorised by the one before it. None
    /// when that takes more looks than are left.
    fn first_join(&self, id: &EventId, looks: &mut usize) -> Result<Option<EventRef>, Error> {
        let Some(mut join) = self.core.load_event(id)? else { return Ok(None) };
        'back: loop {
            for id in join.pdu.auth_events() {
                let Some(left) = looks.checked_sub(1) else { return Ok(None) };
                *looks = left;
                let Some(event) = self.core.load_event(id)? else { continue };
                let is_before = event.pdu.kind() == "m.room.member" && event.pdu.state_key() == join.pdu.state_key();
                if is_before && event.pdu.membership_state() == Some(Membership::Join) {
                    join = event;
                    continue 'back;
                }
            }
            return Ok(Some(join));
        }
    }

    /// The event of this room at which the server may look: it is in the room, or was when the event was sent.
    ///
    /// # Errors
    /// [`Error::NotFound`] if the event is unknown, of another room, or without a place in it; [`Error::Forbidden`].
    pub fn event(&self, id: &EventId) -> Result<EventRef, Error> {
        let Some(event) = self.find_event(id)? else {
            // Who has no business here does not learn what is known.
            self.require_in_room()?;
            return Err(Error::not_found("this event is not known"));
        };
        if !self.is_in_room && !self.was_in_room_at(&event)? {
            return Err(refused());
        }
        Ok(event)
    }

    /// The event, if it is of this room and has a place in its graph.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn find_event(&self, id: &EventId) -> Result<Option<EventRef>, Error> {
        Ok(self.find_step(id)?.filter(|event| event.record.status != Status::Rejected))
    }

    /// The event, if it is of this room and has a place in its graph, rejected or not: what came before a rejected event is
    /// history too, though the event itself is shown to nobody.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn find_step(&self, id: &EventId) -> Result<Option<EventRef>, Error> {
        let event = self.core.load_event(id)?;
        Ok(event.filter(|event| event.pdu.room_id() == self.room.id() && event.record.status != Status::Outlier))
    }

    /// The event as this server may see it: whole, as its skeleton, or not at all.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn shown(&self, event: &EventRef) -> Result<Option<Pdu>, Error> {
        if event.record.status == Status::Rejected || (!self.is_in_room && !self.was_in_room_at(event)?) {
            return Ok(None);
        }
        let is_ours_to_show = match event.record.status {
            Status::Accepted | Status::SoftFailed => true,
            // What policy keeps back is known to the graph only.
            Status::Withheld | Status::Held | Status::Outlier | Status::Rejected => false,
        };
        if is_ours_to_show && !self.is_erased(event)? && self.core.server_can_see_event(self.server, event)? {
            return Ok(Some(event.pdu.clone()));
        }
        event.pdu.skeleton().map(Some).map_err(|error| Error::internal(error.to_string()))
    }

    /// Whether its sender is a user of ours who asked that what they said be forgotten.
    fn is_erased(&self, event: &EventRef) -> Result<bool, Error> {
        let sender = event.pdu.sender();
        if event.pdu.is_state() || !self.core.is_local_user(sender) {
            return Ok(false);
        }
        Ok(self.core.account(sender)?.is_some_and(|account| account.erased))
    }

    /// Whether a user of the server was joined when the event was sent, or the event is the joining or inviting of one.
    fn was_in_room_at(&self, event: &EventRef) -> Result<bool, Error> {
        let concerns = |key: &str| <&UserId>::try_from(key).is_ok_and(|user| user.server_name() == self.server);
        if event.pdu.kind() == "m.room.member" && event.pdu.state_key().is_some_and(concerns) {
            return Ok(true);
        }
        let before = self.core.load_state_group(event.record.state_before)?;
        self.core.server_is_joined_in(self.server, &before)
    }
}

impl Core {
    /// Whether a user of the server is joined in this state.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(crate) fn server_is_joined_in(&self, server: &ServerName, state: &StateMap) -> Result<bool, Error> {
        for (key, _) in state.iter().filter(|(key, _)| &*key.kind == "m.room.member") {
            let Ok(user) = <&UserId>::try_from(&*key.key) else { continue };
            if user.server_name() == server && self.membership_in(state, user)? == Membership::Join {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn refused() -> Error {
    Error::forbidden("your server is not in this room")
}

//! Who may see which event (Client-Server API, "Room history visibility").

use matron_room::{HistoryVisibility, Membership};
use ruma::{OwnedRoomId, ServerName, UserId};
use serde::Deserialize;

use super::{EventRef, GroupId, Room, StateMap, state_map::find_in};
use crate::{Core, Error};

/// Who reads many events, and what held for them in the state before the last of these: neighbours in a timeline mostly
/// share that state.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    /// Who reads.
    pub user: &'a UserId,
    before: Option<(GroupId, Membership, Option<HistoryVisibility>)>,
    /// The room that was asked about last, and whether policy lets the reader read it.
    room: Option<(OwnedRoomId, bool)>,
}

impl<'a> Reader<'a> {
    /// A reader who has seen nothing yet.
    pub(crate) fn new(user: &'a UserId) -> Self {
        Self { user, before: None, room: None }
    }
}

#[derive(Deserialize)]
struct Content {
    history_visibility: String,
}

impl Core {
    /// The history visibility that a state sets; `shared` if it sets none.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn history_visibility_in(&self, state: &StateMap) -> Result<HistoryVisibility, Error> {
        let Some(id) = find_in(state, "m.room.history_visibility", "") else {
            return Ok(HistoryVisibility::Shared);
        };
        Ok(self
            .load_event(id)?
            .and_then(|event| event.pdu.content_as::<Content>().ok())
            .and_then(|content| HistoryVisibility::parse(&content.history_visibility))
            .unwrap_or(HistoryVisibility::Shared))
    }

    /// Whether anybody may look into the room: its history is world readable, and no policy has a say in it.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(crate) fn is_open_to_the_world(&self, room: &Room) -> Result<bool, Error> {
        let current = room.current();
        Ok(self.history_visibility_in(&current)? == HistoryVisibility::WorldReadable && !self.is_governed(&current))
    }

    /// Whether policy lets the reader read the event: what is said, not the state.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(crate) fn policy_lets_reader_read(&self, reader: &mut Reader<'_>, event: &EventRef) -> Result<bool, Error> {
        if event.pdu.is_state() {
            return Ok(true);
        }
        let room = event.pdu.room_id();
        if let Some((known, may_read)) = &reader.room
            && known == room
        {
            return Ok(*may_read);
        }
        let may_read = self.policy_lets_read(reader.user, room)?;
        reader.room = Some((room.to_owned(), may_read));
        Ok(may_read)
    }

    /// Whether the user may see the event: by the room's history visibility and the user's membership when it
    /// was sent, and since. Nobody sees what has expired.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn can_see_event(&self, user: &UserId, event: &EventRef) -> Result<bool, Error> {
        self.reader_can_see(&mut Reader::new(user), event)
    }

    /// What held for the reader in the state before the event.
    ///
    /// # Errors
    /// [`Error::Store`].
    fn reader_before(
        &self,
        reader: &mut Reader<'_>,
        event: &EventRef,
    ) -> Result<(Membership, HistoryVisibility), Error> {
        let membership = self.reader_was(reader, event)?;
        if let Some((_, _, Some(visibility))) = reader.before {
            return Ok((membership, visibility));
        }
        let group = event.record.state_before;
        let visibility = self.history_visibility_in(&self.load_state_group(group)?)?;
        reader.before = Some((group, membership, Some(visibility)));
        Ok((membership, visibility))
    }

    /// The reader's membership in the state before the event.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(crate) fn reader_was(&self, reader: &mut Reader<'_>, event: &EventRef) -> Result<Membership, Error> {
        let group = event.record.state_before;
        if let Some((known, membership, _)) = reader.before
            && known == group
        {
            return Ok(membership);
        }
        let membership = self.membership_in(&self.load_state_group(group)?, reader.user)?;
        reader.before = Some((group, membership, None));
        Ok(membership)
    }

    /// As [`Core::can_see_event`], for one of many events.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(crate) fn reader_can_see(&self, reader: &mut Reader<'_>, event: &EventRef) -> Result<bool, Error> {
        let user = reader.user;
        if !event.is_shown(self.now_ms()) || !self.policy_lets_reader_read(reader, event)? {
            return Ok(false);
        }
        // A member event that concerns the user is always seen.
        if event.pdu.kind() == "m.room.member" && event.pdu.state_key() == Some(user.as_str()) {
            return Ok(true);
        }
        let (then, mut visibility) = self.reader_before(reader, event)?;
        if event.pdu.is_state_of("m.room.history_visibility", "") {
            // The more open of what was and what becomes counts.
            let after = event
                .pdu
                .content_as::<Content>()
                .ok()
                .and_then(|content| HistoryVisibility::parse(&content.history_visibility));
            visibility = after.map_or(visibility, |after| more_open(visibility, after));
        }
        if visibility == HistoryVisibility::WorldReadable {
            // What was said to the world before the room had a policy is its members' now.
            let room = self.find_room(event.pdu.room_id())?;
            if room.is_none_or(|room| !self.is_governed(&room.current())) {
                return Ok(true);
            }
            visibility = HistoryVisibility::Shared;
        }
        Ok(match visibility {
            HistoryVisibility::WorldReadable => true,
            _ if then == Membership::Join => true,
            HistoryVisibility::Invited => then == Membership::Invite && self.was_joined_after(user, event)?,
            HistoryVisibility::Shared => self.was_joined_after(user, event)?,
            HistoryVisibility::Joined => false,
        })
    }

    /// Whether the user is joined now, or left after the event.
    fn was_joined_after(&self, user: &UserId, event: &EventRef) -> Result<bool, Error> {
        let Some(standing) = self.standing(user, event.pdu.room_id())? else { return Ok(false) };
        match standing.membership {
            Membership::Join => Ok(true),
            Membership::Leave | Membership::Ban => {
                // Joined up to the leaving: the event must be older, and the leaving must end a joining.
                let Some(leaving) = &standing.event_id else { return Ok(false) };
                let Some(leaving) = self.load_event(leaving)? else { return Ok(false) };
                let before = self.load_state_group(leaving.record.state_before)?;
                Ok(event.record.timeline < leaving.record.timeline
                    && self.membership_in(&before, user)? == Membership::Join)
            }
            Membership::Invite | Membership::Knock => Ok(false),
        }
    }

    /// Whether a server may see the event's content: a user of it could when it was sent, or since.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn server_can_see_event(&self, server: &ServerName, event: &EventRef) -> Result<bool, Error> {
        if event.is_expired(self.now_ms()) {
            return Ok(false);
        }
        if event.pdu.is_state() || event.pdu.sender().server_name() == server {
            return Ok(true);
        }
        if let Some(room) = self.find_room(event.pdu.room_id())?
            && self.servers_within(&mut room.lock(), std::iter::once(server))?.is_empty()
        {
            return Ok(false);
        }
        let before = self.load_state_group(event.record.state_before)?;
        let visibility = self.history_visibility_in(&before)?;
        if matches!(visibility, HistoryVisibility::WorldReadable | HistoryVisibility::Shared) {
            return Ok(true);
        }
        for (key, _) in before.iter().filter(|(key, _)| &*key.kind == "m.room.member") {
            let Ok(user) = <&UserId>::try_from(&*key.key) else { continue };
            if user.server_name() != server {
                continue;
            }
            match self.membership_in(&before, user)? {
                Membership::Join => return Ok(true),
                Membership::Invite if visibility == HistoryVisibility::Invited => return Ok(true),
                _ => {}
            }
        }
        Ok(false)
    }
}

fn more_open(one: HistoryVisibility, other: HistoryVisibility) -> HistoryVisibility {
    let rank = |visibility| match visibility {
        HistoryVisibility::WorldReadable => 3,
        HistoryVisibility::Shared => 2,
        HistoryVisibility::Invited => 1,
        HistoryVisibility::Joined => 0,
    };
    if rank(one) >= rank(other) { one } else { other }
}

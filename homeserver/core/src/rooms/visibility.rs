//! Who may see which event (Client-Server API, "Room history visibility").

use matron_room::{HistoryVisibility, Membership};
use ruma::{ServerName, UserId};
use serde::Deserialize;

use super::{EventRef, StateKey, StateMap};
use crate::{Core, Error};

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
        let Some(id) = state.get(&StateKey::new("m.room.history_visibility", "")) else {
            return Ok(HistoryVisibility::Shared);
        };
        Ok(self
            .load_event(id)?
            .and_then(|event| event.pdu.content_as::<Content>().ok())
            .and_then(|content| HistoryVisibility::parse(&content.history_visibility))
            .unwrap_or(HistoryVisibility::Shared))
    }

    /// Whether the user may see the event: by the room's history visibility and the user's membership when it
    /// was sent, and since. Nobody sees what has expired.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn can_see_event(&self, user: &UserId, event: &EventRef) -> Result<bool, Error> {
        if !event.is_shown(self.now_ms()) {
            return Ok(false);
        }
        // A member event that concerns the user is always seen.
        if event.pdu.kind() == "m.room.member" && event.pdu.state_key() == Some(user.as_str()) {
            return Ok(true);
        }
        let before = self.load_state_group(event.record.state_before)?;
        let mut visibility = self.history_visibility_in(&before)?;
        if event.pdu.is_state_of("m.room.history_visibility", "") {
            // The more open of what was and what becomes counts.
            let after = event
                .pdu
                .content_as::<Content>()
                .ok()
                .and_then(|content| HistoryVisibility::parse(&content.history_visibility));
            visibility = after.map_or(visibility, |after| more_open(visibility, after));
        }
        let then = self.membership_in(&before, user)?;
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

//! Who is in a room, as a user may see it.

use std::collections::BTreeMap;

use matron_room::Membership;
use ruma::{OwnedUserId, RoomId, UserId};
use serde::{Deserialize, Serialize};

use crate::{
    Core, Error,
    rooms::{EventRef, state_map::find_in},
    sync::SyncToken,
};

/// A member's profile.
#[derive(Clone, Debug, Default, Serialize)]
pub struct MemberProfile {
    /// The display name.
    pub display_name: Option<String>,
    /// The avatar.
    pub avatar_url: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Content {
    displayname: Option<String>,
    avatar_url: Option<String>,
}

impl Core {
    /// The member events that the user may see, as of the token `at` if one is given.
    ///
    /// # Errors
    /// As [`Core::visible_state`]; [`Error::InvalidParam`] for a token that is none.
    pub fn room_members(&self, user: &UserId, room: &RoomId, at: Option<&str>) -> Result<Vec<EventRef>, Error> {
        let mut state = self.visible_state(user, room)?;
        if let Some(at) = at
            && self.is_joined(user, room)?
        {
            state = match at.strip_prefix('t') {
                Some(timeline) => {
                    let timeline: u64 =
                        timeline.parse().map_err(|_| Error::invalid("this is not a token of this server"))?;
                    self.state_as_of(
                        room,
                        matron_storage::StreamPos(timeline.saturating_sub(1 << 63).saturating_sub(1)),
                    )?
                }
                None => self.state_as_of(room, at.parse::<SyncToken>()?.stream)?,
            };
        }
        let ids = state.iter().filter(|(key, _)| &*key.kind == "m.room.member").map(|(_, id)| &***id);
        self.load_events(ids)
    }

    /// Who is joined, with the profiles in this room.
    ///
    /// # Errors
    /// [`Error::Forbidden`] for anyone who is not joined.
    pub fn joined_profiles(
        &self,
        user: &UserId,
        room_id: &RoomId,
    ) -> Result<BTreeMap<OwnedUserId, MemberProfile>, Error> {
        let room = self.find_room(room_id)?.ok_or_else(|| Error::forbidden("you are not in this room"))?;
        self.require_joined(&room, user)?;
        let state = room.current();
        let mut profiles = BTreeMap::new();
        for member in room.joined() {
            let event = match find_in(&state, "m.room.member", member.as_str()) {
                Some(id) => self.load_event(id)?,
                None => None,
            };
            let content = event
                .filter(|event| event.pdu.membership_state() == Some(Membership::Join))
                .and_then(|event| event.pdu.content_as::<Content>().ok())
                .unwrap_or_default();
            profiles
                .insert(member, MemberProfile { display_name: content.displayname, avatar_url: content.avatar_url });
        }
        Ok(profiles)
    }
}

//! Knocking.

use std::sync::Arc;

use matron_room::Membership;
use ruma::{OwnedRoomId, RoomId, UserId};

use super::JoinOptions;
use crate::{Core, Error, rooms::send::NewEvent};

impl Core {
    /// The user knocks.
    ///
    /// # Errors
    /// [`Error::Forbidden`] by the room's rules or policy.
    pub async fn knock(
        self: &Arc<Self>,
        user: &UserId,
        room_id: &RoomId,
        options: JoinOptions,
    ) -> Result<OwnedRoomId, Error> {
        let Some(room) = self.find_room(room_id)?.filter(|room| room.has_server(&self.server_name)) else {
            return self.knock_remote_room(user, room_id, options).await;
        };
        match room.lock().membership(self, user)? {
            Membership::Join => return Err(Error::forbidden("you are in the room already")),
            Membership::Invite => return Err(Error::forbidden("you are invited already")),
            Membership::Ban => return Err(Error::forbidden("you are banned from this room")),
            Membership::Leave | Membership::Knock => {}
        }
        let content = self.member_content(user, Membership::Knock, options.reason.as_deref())?;
        self.send_event(NewEvent::state(room_id.to_owned(), user.to_owned(), "m.room.member", user.as_str(), content))
            .await?;
        Ok(room_id.to_owned())
    }
}

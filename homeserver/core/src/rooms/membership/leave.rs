//! Leaving, and forgetting what was left.

use std::sync::Arc;

use matron_room::Membership;
use matron_storage::{Batch, Key, Table};
use ruma::{RoomId, UserId};

use crate::{
    Core, Error,
    rooms::{UserRoom, send::NewEvent},
};

impl Core {
    /// The user has left, or has refused the invite or withdrawn the knock.
    ///
    /// # Errors
    /// [`Error::Forbidden`] if banned or never there; [`Error::NotFound`].
    pub async fn leave_room(
        self: &Arc<Self>,
        user: &UserId,
        room_id: &RoomId,
        reason: Option<&str>,
    ) -> Result<(), Error> {
        let in_room = self.find_room(room_id)?.is_some_and(|room| room.has_server(&self.server_name));
        let standing = self.standing(user, room_id)?;
        match standing.as_ref().map(|standing| standing.membership) {
            None => return Err(Error::not_found("you are not in this room")),
            Some(Membership::Leave) => return Ok(()),
            Some(Membership::Ban) => return Err(Error::forbidden("you are banned from this room")),
            Some(Membership::Join | Membership::Invite | Membership::Knock) => {}
        }
        if !in_room {
            return self.leave_remote_room(user, room_id, reason).await;
        }
        let content = self.member_content(user, Membership::Leave, reason)?;
        self.send_event(NewEvent::state(room_id.to_owned(), user.to_owned(), "m.room.member", user.as_str(), content))
            .await?;
        Ok(())
    }

    /// The room is out of the user's sight; possible once the user has left.
    ///
    /// # Errors
    /// [`Error::Unknown`] if the user has not left.
    pub async fn forget_room(&self, user: &UserId, room_id: &RoomId) -> Result<(), Error> {
        let Some(standing) = self.standing(user, room_id)? else { return Ok(()) };
        if !matches!(standing.membership, Membership::Leave | Membership::Ban) {
            return Err(Error::Unknown("leave the room before you forget it".into()));
        }
        let mut batch = Batch::new();
        let index = batch.reserve_position();
        self.write_standing(&mut batch, room_id, user, &UserRoom { forgotten: true, ..standing }, index)?;
        batch.delete_range(Table::RoomNotification, Key::new().text(user).text(room_id).prefix());
        self.commit(batch).await?;
        self.rooms.forget_user(user);
        Ok(())
    }
}

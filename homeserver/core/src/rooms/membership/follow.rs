//! What follows from a membership, and what a membership follows.

use std::sync::Arc;

use matron_room::Membership;
use ruma::{OwnedUserId, UserId};

use crate::{
    Core, Error,
    rooms::{Room, send::NewEvent},
};

impl Core {
    /// The member events of a user follow the profile, in every joined room.
    ///
    /// # Errors
    /// [`Error::Store`]; a room that refuses is left as it is.
    pub async fn update_membership_profiles(self: &Arc<Self>, user: &UserId) -> Result<(), Error> {
        for room_id in self.joined_rooms(user)? {
            let content = self.member_content(user, Membership::Join, None)?;
            let new = NewEvent::state(room_id.clone(), user.to_owned(), "m.room.member", user.as_str(), content);
            if let Err(error) = self.send_event(new).await {
                tracing::debug!(room.id = %room_id, %error, "a room keeps the old profile");
            }
        }
        Ok(())
    }

    /// What follows from changed memberships, after the commit: device lists, waiting invites, evictions.
    pub(crate) async fn membership_changed(self: &Arc<Self>, room: &Arc<Room>, affected: &[OwnedUserId]) {
        // A room that was joined elsewhere brings all its members at once: what can be done for all is done once.
        let now_joined = room.joined();
        if let Err(error) = self.device_lists_after_memberships(room.id(), affected, &now_joined).await {
            tracing::warn!(room.id = %room.id(), %error, "device lists could not follow a membership");
        }
        for user in affected {
            let joined = now_joined.contains(user);
            if joined
                && self.is_local_user(user)
                && let Err(error) = self.follow_upgrade(user, room).await
            {
                tracing::warn!(room.id = %room.id(), %error, "a user's settings could not follow a room's upgrade");
            }
        }
    }
}

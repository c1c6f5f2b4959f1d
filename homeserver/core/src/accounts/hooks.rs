//! What accounts ask of other parts of the house.

use std::sync::Arc;

use matron_room::Membership;
use ruma::UserId;

use crate::{Core, Error};

impl Core {
    /// The user's rooms show the new name or picture.
    pub(super) async fn profile_changed(self: &Arc<Self>, user: &UserId) -> Result<(), Error> {
        self.notifier.wake_user(user);
        self.update_membership_profiles(user).await
    }

    /// The user has left every room, and declined every invitation. One that cannot be left does not keep the others.
    pub(super) async fn leave_rooms_for_good(self: &Arc<Self>, user: &UserId) -> Result<(), Error> {
        for (room, standing) in self.user_rooms(user)?.iter() {
            if !matches!(standing.membership, Membership::Join | Membership::Invite | Membership::Knock) {
                continue;
            }
            if let Err(error) = self.leave_room(user, room, None).await {
                tracing::warn!(%error, room.id = %room, "a closed account could not leave a room");
            }
        }
        self.notifier.wake_user(user);
        Ok(())
    }
}

//! What accounts ask of other parts of the house.

use ruma::UserId;

use crate::{Core, Error};

impl Core {
    /// Whoever shares a room learns that this user's devices changed.
    pub(super) async fn announce_devices(&self, user: &UserId) -> Result<(), Error> {
        self.notifier.wake_user(user);
        Ok(())
    }

    /// The user's rooms show the new name or picture.
    pub(super) async fn profile_changed(&self, user: &UserId) -> Result<(), Error> {
        self.notifier.wake_user(user);
        Ok(())
    }

    /// The user has left every room.
    pub(super) async fn leave_rooms_for_good(&self, user: &UserId) -> Result<(), Error> {
        self.notifier.wake_user(user);
        Ok(())
    }
}

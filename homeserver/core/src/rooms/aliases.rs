//! Aliases and the directory of public rooms.

use std::sync::Arc;

use ruma::{RoomId, UserId};

use crate::{Core, Error};

impl Core {
    /// The alias of this server with this local part, if it may be taken by the user.
    ///
    /// # Errors
    /// [`Error::RoomInUse`], [`Error::InvalidParam`], [`Error::Exclusive`].
    pub fn new_local_alias(&self, _user: &UserId, local: &str) -> Result<String, Error> {
        Ok(format!("#{local}:{}", self.server_name))
    }

    /// The alias leads to the room.
    ///
    /// # Errors
    /// [`Error::RoomInUse`].
    pub async fn set_alias(self: &Arc<Self>, _user: &UserId, _alias: &str, _room: &RoomId) -> Result<(), Error> {
        Ok(())
    }

    /// The room is in the directory of public rooms, or no longer.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn publish_room(&self, _room: &RoomId, _listed: bool) -> Result<(), Error> {
        Ok(())
    }
}

//! Aliases and the directory of public rooms.

use std::sync::Arc;

use ruma::{OwnedRoomId, OwnedServerName, RoomAliasId, RoomId, UserId};
use serde_json::Value;

use crate::{Core, Error};

/// Where an alias leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AliasTarget {
    /// The room.
    pub room_id: OwnedRoomId,
    /// Servers that are in it.
    pub servers: Vec<OwnedServerName>,
}

impl Core {
    /// Where the alias leads; another server's is asked there.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn resolve_alias(self: &Arc<Self>, _alias: &RoomAliasId) -> Result<AliasTarget, Error> {
        Err(Error::not_found("this alias is not known"))
    }

    /// The aliases in a canonical alias event lead to the room.
    ///
    /// # Errors
    /// [`Error::BadAlias`], [`Error::InvalidParam`].
    pub(crate) async fn check_canonical_alias(self: &Arc<Self>, _room: &RoomId, _content: &Value) -> Result<(), Error> {
        Ok(())
    }

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

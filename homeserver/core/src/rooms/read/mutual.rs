//! `GET /_matrix/client/v1/mutual_rooms`: the rooms that two users are both joined to.

use matron_room::Membership;
use ruma::{OwnedRoomId, RoomId, UserId};
use serde::Serialize;

use crate::{Core, Error};

/// How many rooms one page holds.
const PAGE: usize = 100;

/// A page of the rooms that two users share.
#[derive(Debug, Default, Serialize)]
pub struct MutualRooms {
    /// The rooms.
    pub joined: Vec<OwnedRoomId>,
    /// How many there are in all.
    pub count: usize,
    /// Where to go on, if there are more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_batch: Option<String>,
}

impl Core {
    /// The rooms that both users are joined to, by their ids.
    ///
    /// # Errors
    /// `M_INVALID_PARAM` for the user's own id, an id of a form that is no longer allowed, or a token that is not ours.
    pub fn mutual_rooms(&self, user: &UserId, other: &UserId, from: Option<&str>) -> Result<MutualRooms, Error> {
        if user == other {
            return Err(Error::invalid("these are all of your rooms"));
        }
        if other.validate_strict().is_err() {
            return Err(Error::invalid("this is not a user id"));
        }
        let from = from
            .map(|from| <&RoomId>::try_from(from).map_err(|_| Error::invalid("this is not a token of this server")))
            .transpose()?;
        let theirs = self.user_rooms(other)?;
        let joined = |room: &RoomId| theirs.get(room).is_some_and(|standing| standing.membership == Membership::Join);
        let mut rooms = self.joined_rooms(user)?;
        rooms.retain(|room| joined(room));
        let count = rooms.len();
        if let Some(from) = from {
            rooms.retain(|room| **room > *from);
        }
        let more = rooms.len() > PAGE;
        rooms.truncate(PAGE);
        let next_batch = rooms.last().filter(|_| more).map(ToString::to_string);
        Ok(MutualRooms { joined: rooms, count, next_batch })
    }
}

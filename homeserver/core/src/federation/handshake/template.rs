//! `make_join`, `make_leave`, `make_knock`: the event that a user of another server could send, for that server to sign.

use matron_room::Membership;
use ruma::{RoomId, ServerName, UserId};
use serde::Serialize;
use serde_json::{Value, json, value::RawValue};
use std::sync::Arc;

use crate::{
    Core, Error,
    rooms::{
        Room,
        membership::JoinGate,
        room::Inner,
        send::{NewEvent, seal_error},
    },
};

/// The answer to `make_join`, `make_leave` and `make_knock`.
#[derive(Debug, Serialize)]
pub struct RoomTemplate {
    /// The room's version.
    pub room_version: &'static str,
    /// The event without hashes and signatures.
    pub event: Box<RawValue>,
}

impl Core {
    /// The room, if this server is in it and the room's access control list lets the other one take part.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Forbidden`].
    pub(crate) fn room_for_peer(&self, origin: &ServerName, room_id: &RoomId) -> Result<Arc<Room>, Error> {
        let room = self.room_of_ours(room_id)?.ok_or_else(|| Error::not_found("this server is not in this room"))?;
        self.check_server_acl(&room, origin)?;
        Ok(room)
    }

    /// The event with which the user of another server can join, as the room stands. `versions` are those that the server
    /// supports.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a room that this server is not in, [`Error::Forbidden`] by its rules and for users of other
    /// servers than the origin, [`Error::IncompatibleRoomVersion`], [`Error::UnableToAuthoriseJoin`],
    /// [`Error::UnableToGrantJoin`], [`Error::PolicyDenied`].
    pub fn make_join(
        &self,
        origin: &ServerName,
        room_id: &RoomId,
        user: &UserId,
        versions: &[String],
    ) -> Result<RoomTemplate, Error> {
        self.membership_template(origin, room_id, user, Membership::Join, versions)
    }

    /// The event with which the user of another server can leave, refuse an invite or withdraw a knock.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Forbidden`].
    pub fn make_leave(&self, origin: &ServerName, room_id: &RoomId, user: &UserId) -> Result<RoomTemplate, Error> {
        self.membership_template(origin, room_id, user, Membership::Leave, &[])
    }

    /// The event with which the user of another server can knock.
    ///
    /// # Errors
    /// As [`Core::make_join`].
    pub fn make_knock(
        &self,
        origin: &ServerName,
        room_id: &RoomId,
        user: &UserId,
        versions: &[String],
    ) -> Result<RoomTemplate, Error> {
        self.membership_template(origin, room_id, user, Membership::Knock, versions)
    }

    /// The event with which the user of another server can join, leave or knock, as the room stands.
    fn membership_template(
        &self,
        origin: &ServerName,
        room_id: &RoomId,
        user: &UserId,
        membership: Membership,
        versions: &[String],
    ) -> Result<RoomTemplate, Error> {
        if user.server_name() != origin {
            return Err(Error::forbidden("this is not a user of your server"));
        }
        let room = self.room_for_peer(origin, room_id)?;
        let version = room.version();
        if membership != Membership::Leave && !supports(versions, version.as_str()) {
            return Err(Error::IncompatibleRoomVersion { room_version: version.as_str().to_owned() });
        }
        if membership == Membership::Knock && !version.rules.authorization.knocking {
            return Err(Error::forbidden("nobody can knock on rooms of this version"));
        }
        let mut inner = room.lock();
        self.permit_template(&room, &mut inner, user, membership)?;
        let mut content = json!({"membership": membership.as_str()});
        if membership == Membership::Join
            && let JoinGate::Authorised(voucher) = self.join_gate(&room, &mut inner, user)?
            && let Value::Object(content) = &mut content
        {
            content.insert("join_authorised_via_users_server".to_owned(), json!(voucher));
        }
        let new = NewEvent::state(room_id.to_owned(), user.to_owned(), "m.room.member", user.as_str(), content);
        self.template_of(&room, &mut inner, &new)
    }

    fn template_of(&self, room: &Room, inner: &mut Inner, new: &NewEvent) -> Result<RoomTemplate, Error> {
        let draft = self.draft_local(room, inner, new)?;
        let event = draft.to_template(room.version()).map_err(seal_error)?;
        // Sealed by us it is no valid event, but one that the room's rules can judge.
        let pdu = draft.seal(room.version(), &self.signing_key, &self.server_name).map_err(seal_error)?;
        self.authorise(inner, &pdu)?;
        Ok(RoomTemplate { room_version: room.version().as_str(), event })
    }
}

/// SPEC: v1.19 Server-Server API, make_join: a server that names no versions supports version 1.
fn supports(versions: &[String], version: &str) -> bool {
    if versions.is_empty() { version == "1" } else { versions.iter().any(|known| known == version) }
}

//! Refusing an invite, withdrawing a knock or taking back a join, of a room that this server is not in.

use std::sync::Arc;

use matron_room::{DraftPdu, Membership, Pdu, RoomVersion};
use ruma::{RoomId, ServerName, UserId};

use super::stripped::StrippedRoom;
use crate::{Core, Error};

/// How many servers are asked before the user has left without telling anyone.
const MAX_SERVERS: usize = 3;

impl Core {
    /// The user has refused the invite, or withdrawn the knock, of a room that this server is not in.
    ///
    /// # Errors
    /// [`Error::Store`]; [`Error::Forbidden`] for a reason where the room has a policy; an unreachable server does not keep
    /// the user.
    pub(crate) async fn leave_remote_room(
        self: &Arc<Self>,
        user: &UserId,
        room_id: &RoomId,
        reason: Option<&str>,
    ) -> Result<(), Error> {
        if reason.is_some_and(|reason| !reason.is_empty()) && self.was_shown_a_policy(user, room_id)? {
            return Err(Error::forbidden(
                "this room has a policy, and you are not in it: without a reason you may leave or decline at any time",
            ));
        }
        let servers = match self.handshake_servers(user, room_id, &[]) {
            Ok(servers) => servers,
            Err(error @ Error::Store(_)) => return Err(error),
            Err(_nobody_to_tell) => Vec::new(),
        };
        let mut left = None;
        for server in servers.into_iter().take(MAX_SERVERS) {
            match self.leave_through(&server, user, room_id, reason).await {
                Ok(leave) => {
                    left = Some(leave);
                    break;
                }
                Err(error @ Error::Store(_)) => return Err(error),
                Err(error) => {
                    tracing::info!(room.id = %room_id, peer.name = %server, %error, "a server could not be told of a leave");
                }
            }
        }
        let leave = match left {
            Some(leave) => Some(leave),
            None => self.unheard_leave(user, room_id, reason)?,
        };
        let stripped = StrippedRoom {
            room_version: leave.as_ref().map(|leave| leave.room_version().as_str().to_owned()).unwrap_or_default(),
            event: leave.map(|leave| leave.json().to_owned()),
            ..StrippedRoom::default()
        };
        self.set_outside_standing(user, room_id, Membership::Leave, user.to_owned(), stripped).await
    }

    /// The user, whom the other server has just taken in, is out of the room again.
    ///
    /// # Errors
    /// [`Error::Store`], or what the server answered.
    pub(super) async fn leave_at_once(
        &self,
        server: &ServerName,
        user: &UserId,
        room_id: &RoomId,
    ) -> Result<(), Error> {
        let leave = self.leave_through(server, user, room_id, None).await?;
        let stripped = StrippedRoom {
            room_version: leave.room_version().as_str().to_owned(),
            event: Some(leave.json().to_owned()),
            ..StrippedRoom::default()
        };
        self.set_outside_standing(user, room_id, Membership::Leave, user.to_owned(), stripped).await
    }

    /// Whether the user's invite or knock showed that the room has a policy.
    fn was_shown_a_policy(&self, user: &UserId, room_id: &RoomId) -> Result<bool, Error> {
        #[derive(serde::Deserialize)]
        struct Shown {
            #[serde(rename = "type")]
            kind: String,
        }
        let Some(stripped) = self.load_stripped(user, room_id)? else { return Ok(false) };
        let mut shown = stripped.invite_state.iter().chain(&stripped.knock_state);
        Ok(shown.any(|event| {
            serde_json::from_str::<Shown>(event.get()).is_ok_and(|shown| shown.kind == matron_policy::ROOM_POLICY_TYPE)
        }))
    }

    /// A leave that no other server has heard of: for the user's own devices.
    fn unheard_leave(&self, user: &UserId, room_id: &RoomId, reason: Option<&str>) -> Result<Option<Pdu>, Error> {
        let stripped = self.load_stripped(user, room_id)?;
        let Some(version) = stripped.and_then(|stripped| RoomVersion::find(&stripped.room_version)) else {
            return Ok(None);
        };
        let content = self.member_content(user, Membership::Leave, reason)?;
        let mut draft = DraftPdu::new(Some(room_id.to_owned()), user.to_owned(), "m.room.member", content)
            .with_state_key(user.as_str());
        draft.origin_server_ts_ms = self.now_ms();
        Ok(draft.seal(version, &self.signing_key, &self.server_name).ok())
    }

    async fn leave_through(
        &self,
        server: &ServerName,
        user: &UserId,
        room_id: &RoomId,
        reason: Option<&str>,
    ) -> Result<Pdu, Error> {
        let template = self.fetch_template(server, Membership::Leave, room_id, user).await?;
        let content = self.member_content(user, Membership::Leave, reason)?;
        let leave = self.seal_membership(&template, user, room_id, content)?;
        self.send_leave(server, &leave).await?;
        Ok(leave)
    }
}

//! Knocking on a room that this server is not in.

use std::sync::Arc;

use matron_room::{Membership, RoomVersion, stripped_event};
use ruma::{OwnedRoomId, RoomId, ServerName, UserId};
use serde_json::value::RawValue;

use super::{
    invite_in::shown_state,
    may_ask_others,
    stripped::{MAX_STRIPPED, StrippedRoom},
    worse,
};
use crate::{Core, Error, federation::client::passed_on, rooms::membership::JoinOptions};

impl Core {
    /// The user has knocked on a room that this server is not in.
    ///
    /// # Errors
    /// As [`Core::join_remote_room`].
    pub(crate) async fn knock_remote_room(
        self: &Arc<Self>,
        user: &UserId,
        room_id: &RoomId,
        options: JoinOptions,
    ) -> Result<OwnedRoomId, Error> {
        let servers = self.handshake_servers(user, room_id, &options.via)?;
        self.permit_remote_join(user, room_id, Membership::Knock).await?;
        let mut refusal = None;
        for server in servers {
            match self.knock_through(&server, user, room_id, options.reason.as_deref()).await.map_err(passed_on) {
                Ok(stripped) => {
                    self.set_outside_standing(user, room_id, Membership::Knock, user.to_owned(), stripped).await?;
                    return Ok(room_id.to_owned());
                }
                Err(error) if may_ask_others(&error) => refusal = Some(worse(refusal, error)),
                Err(error) => return Err(error),
            }
        }
        Err(refusal.unwrap_or_else(|| Error::not_found("no server is known that has this room")))
    }

    /// What a resident server shows to someone who knocks, in stripped form. Since room version 12 these are whole events:
    /// those that are not signed as they must be, or of another room, are left out.
    async fn shown_to_knocker(
        &self,
        version: &'static RoomVersion,
        room_id: &RoomId,
        state: Vec<Box<RawValue>>,
    ) -> Result<Vec<Box<RawValue>>, Error> {
        if !version.has_hashed_room_id() {
            return Ok(shown_state(&state, room_id));
        }
        let events = self.verified_events(version, room_id, state.into_iter().take(MAX_STRIPPED).collect()).await?;
        Ok(events.iter().filter(|event| event.is_state()).map(stripped_event).collect())
    }

    async fn knock_through(
        &self,
        server: &ServerName,
        user: &UserId,
        room_id: &RoomId,
        reason: Option<&str>,
    ) -> Result<StrippedRoom, Error> {
        let template = self.fetch_template(server, Membership::Knock, room_id, user).await?;
        let content = self.member_content(user, Membership::Knock, reason)?;
        let knock = self.seal_membership(&template, user, room_id, content)?;
        let state = self.send_knock(server, &knock).await?;
        let mut knock_state = self.shown_to_knocker(knock.room_version(), room_id, state).await?;
        knock_state.push(stripped_event(&knock));
        Ok(StrippedRoom {
            knock_state,
            room_version: knock.room_version().as_str().to_owned(),
            servers: vec![server.to_owned()],
            event: Some(knock.json().to_owned()),
            ..StrippedRoom::default()
        })
    }
}

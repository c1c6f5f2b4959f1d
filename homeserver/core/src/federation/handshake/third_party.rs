//! `exchange_third_party_invite`: an invite by mail address or phone number becomes one of a user.

use std::sync::Arc;

use ruma::{OwnedRoomId, OwnedUserId, RoomId, ServerName};
use serde::Deserialize;
use serde_json::Value;

use crate::{Core, Error};

/// The invite that another server wants us to send in the name of the user who began it.
#[derive(Debug, Deserialize)]
pub struct ThirdPartyExchange {
    /// `m.room.member`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The room.
    pub room_id: OwnedRoomId,
    /// Who invited the third party: a user of ours.
    pub sender: OwnedUserId,
    /// Who is invited.
    pub state_key: OwnedUserId,
    /// Membership `invite` with the `third_party_invite` that proves the identity.
    pub content: Value,
}

impl Core {
    /// The third party is invited as the user that an identity server says it is.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a room that this server is not in; [`Error::Forbidden`] by the room's rules, which check the proof.
    pub async fn exchange_third_party_invite(
        self: &Arc<Self>,
        origin: &ServerName,
        room_id: &RoomId,
        exchange: ThirdPartyExchange,
    ) -> Result<(), Error> {
        self.room_for_peer(origin, room_id)?;
        let is_invite = exchange.kind == "m.room.member"
            && exchange.room_id == room_id
            && exchange.content.get("membership").and_then(Value::as_str) == Some("invite")
            && exchange.content.pointer("/third_party_invite/signed").is_some();
        if !is_invite {
            return Err(Error::invalid("the event is not a third-party invite"));
        }
        if !self.is_local_user(&exchange.sender) {
            return Err(Error::forbidden("the inviting user is not of this server"));
        }
        self.set_membership(&exchange.sender, room_id, &exchange.state_key, exchange.content).await.map(|_| ())
    }
}

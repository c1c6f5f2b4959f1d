//! An invite of a user of ours by another server.

use std::sync::Arc;

use matron_room::{Membership, Pdu, RoomVersion, UncheckedPdu, stripped_event};
use ruma::{OwnedUserId, RoomId, ServerName};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json, value::RawValue};

use super::{
    format_error, signature_error,
    stripped::{MAX_STRIPPED, StrippedRoom},
};
use crate::{Core, Error};

/// What another server sends of an invite.
#[derive(Debug, Deserialize)]
pub struct IncomingInvite {
    /// The room's version.
    pub room_version: String,
    /// The invite.
    pub event: Box<RawValue>,
    /// What the invitee may see of the room.
    #[serde(default)]
    pub invite_room_state: Vec<Box<RawValue>>,
}

/// The answer to an invite.
#[derive(Debug, Serialize)]
pub struct SignedInvite {
    /// The invite with our signature.
    pub event: Pdu,
}

impl IncomingInvite {
    /// The invite that the first version of the endpoint carries: the event itself.
    ///
    /// # Errors
    /// [`Error::BadJson`].
    pub fn from_v1(event: Box<RawValue>) -> Result<Self, Error> {
        #[derive(Default, Deserialize)]
        struct Unsigned {
            #[serde(default)]
            invite_room_state: Vec<Box<RawValue>>,
        }
        #[derive(Deserialize)]
        struct Body {
            #[serde(default)]
            unsigned: Unsigned,
        }
        let body: Body =
            serde_json::from_str(event.get()).map_err(|_| Error::bad_json("the invite has the wrong form"))?;
        // SPEC: v1.19 Server-Server API, "Inviting to a room": the first version is for rooms of version 1 and 2.
        Ok(Self { room_version: "1".to_owned(), event, invite_room_state: body.unsigned.invite_room_state })
    }
}

impl Core {
    /// The invite carries our signature, and the invitee sees it.
    ///
    /// # Errors
    /// [`Error::Forbidden`] for a server that the access control list of a room of ours keeps out;
    /// [`Error::IncompatibleRoomVersion`]; [`Error::InvalidParam`] for what is not an invite of a user of ours by a user of
    /// the origin; [`Error::NotFound`] for a user who does not exist; [`Error::PolicyDenied`] by policy.
    pub async fn receive_invite(
        self: &Arc<Self>,
        origin: &ServerName,
        room_id: &RoomId,
        event_id: &str,
        incoming: IncomingInvite,
    ) -> Result<SignedInvite, Error> {
        let room = self.room_of_ours(room_id)?;
        if let Some(room) = &room {
            self.check_server_acl(room, origin)?;
        }
        let version = self.joinable_version(&incoming.room_version)?;
        let unchecked = UncheckedPdu::parse(&incoming.event, version).map_err(|error| format_error(&error))?;
        let invitee = self.check_invite(unchecked.unverified(), origin, room_id, event_id)?;
        let keys = self.keys_for_event(&unchecked).await?;
        let signer = self.keys_of_signer(origin, &unchecked).await?;
        unchecked.verify_server(origin, &signer).map_err(|error| signature_error(&error))?;
        let pdu = unchecked.verify(&keys).map_err(|error| signature_error(&error))?.into_pdu();
        if room.is_none() && !self.ask_for_user(&invitee).await? {
            return Err(Error::not_found("there is no such user"));
        }
        let state = match &room {
            Some(_) => Vec::new(),
            None => self.checked_room_state(version, room_id, incoming.invite_room_state).await?,
        };
        self.permit_invite_in(&pdu, &invitee, &state).await?;
        let signed = pdu
            .with_signature(&self.signing_key, &self.server_name)
            .map_err(|error| Error::internal(error.to_string()))?;
        if room.is_some() {
            // The event itself comes as every event of the room does.
            return Ok(SignedInvite { event: signed });
        }
        let mut invite_state = state;
        invite_state.push(stripped_event(&signed));
        let shown = invite_state.clone();
        let stripped = StrippedRoom {
            invite_state,
            room_version: version.as_str().to_owned(),
            servers: vec![origin.to_owned()],
            event: Some(signed.json().to_owned()),
            ..StrippedRoom::default()
        };
        self.set_outside_standing(&invitee, room_id, Membership::Invite, pdu.sender().to_owned(), stripped).await?;
        self.push_invite(&invitee, &signed, &shown);
        Ok(SignedInvite { event: signed })
    }

    fn check_invite(
        &self,
        pdu: &Pdu,
        origin: &ServerName,
        room_id: &RoomId,
        event_id: &str,
    ) -> Result<OwnedUserId, Error> {
        let refuse = |sentence: &'static str| Err(Error::invalid(sentence));
        if pdu.room_id() != room_id {
            return refuse("the invite is for another room");
        }
        if pdu.event_id() != event_id {
            return refuse("the invite has another id");
        }
        if pdu.kind() != "m.room.member" || pdu.membership_state() != Some(Membership::Invite) {
            return refuse("the event is not an invite");
        }
        if pdu.sender().server_name() != origin {
            return Err(Error::forbidden("the inviting user is not of your server"));
        }
        match pdu.state_key().map(OwnedUserId::try_from) {
            Some(Ok(invitee)) if self.is_local_user(&invitee) => Ok(invitee),
            _ => refuse("the invitee is not a user of this server"),
        }
    }

    /// What the invitee may see of the room, in stripped form.
    ///
    /// # Errors
    /// [`Error::InvalidParam`] when, since room version 12, the create event is not there.
    async fn checked_room_state(
        &self,
        version: &'static RoomVersion,
        room_id: &RoomId,
        state: Vec<Box<RawValue>>,
    ) -> Result<Vec<Box<RawValue>>, Error> {
        let state: Vec<_> = state.into_iter().take(MAX_STRIPPED).collect();
        if !version.has_hashed_room_id() {
            return Ok(shown_state(&state, room_id));
        }
        // SPEC: v1.16, PUT /invite: full events of this room, the create event among them, whose hash is the room's id.
        let is_founding = |raw: &RawValue| {
            UncheckedPdu::parse(raw, version)
                .is_ok_and(|pdu| pdu.unverified().is_state_of("m.room.create", "") && pdu.room_id() == room_id)
        };
        if !state.iter().any(|raw| is_founding(raw)) {
            return Err(Error::InvalidParam("the create event of the room is missing from invite_room_state".into()));
        }
        let events = self.verified_events(version, room_id, state).await?;
        Ok(events.iter().filter(|event| event.is_state()).map(stripped_event).collect())
    }
}

/// State that nobody vouches for, in stripped form: what has no such form, or names another room, is left out.
pub(super) fn shown_state(state: &[Box<RawValue>], room_id: &RoomId) -> Vec<Box<RawValue>> {
    #[derive(Deserialize)]
    struct Shown {
        #[serde(rename = "type")]
        kind: String,
        state_key: String,
        sender: OwnedUserId,
        content: serde_json::Map<String, Value>,
        room_id: Option<String>,
    }
    let strip = |raw: &RawValue| {
        let shown: Shown = serde_json::from_str(raw.get()).ok()?;
        if shown.room_id.as_deref().is_some_and(|named| named != room_id.as_str()) {
            return None;
        }
        let stripped = json!({
            "type": shown.kind,
            "state_key": shown.state_key,
            "sender": shown.sender,
            "content": shown.content,
        });
        serde_json::value::to_raw_value(&stripped).ok()
    };
    state.iter().take(MAX_STRIPPED).filter_map(|raw| strip(raw)).collect()
}

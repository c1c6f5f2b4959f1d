//! `exchange_third_party_invite` and `3pid/onbind`: an invite by mail address or phone number becomes one of a user.

use std::sync::Arc;

use futures_util::future::join_all;
use matron_room::Membership;
use ruma::{OwnedRoomId, OwnedUserId, RoomId, ServerName, UserId};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::{Value, json};

use crate::{
    Core, Error,
    federation::{
        client::{STEP_TIMEOUT, passed_on},
        fetch::encode,
    },
    ports::http_method::Method,
};

/// How many invites one binding may bring.
const MAX_INVITES: usize = 20;
/// The largest answer of a server that is asked to invite, bytes.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

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

/// An address that an identity server knows to be a user's, and the invites that wait for it.
#[derive(Debug, Deserialize)]
pub struct BoundThirdParty {
    /// `email` or `msisdn`.
    pub medium: String,
    /// The address.
    pub address: String,
    /// Whose it is: a user of ours.
    pub mxid: OwnedUserId,
    /// What waits.
    pub invites: Vec<PendingInvite>,
}

/// An invite of an address.
#[derive(Debug, Deserialize)]
pub struct PendingInvite {
    /// Who is invited.
    pub mxid: OwnedUserId,
    /// Where to.
    pub room_id: OwnedRoomId,
    /// By whom.
    pub sender: OwnedUserId,
    /// What the identity server signed.
    pub signed: Value,
}

impl Core {
    /// The invites that waited for an address are asked for in the name of those who sent them. What an identity server
    /// says is not believed: whoever sends the invite checks its signature by the room's rules.
    ///
    /// Whoever says this may be anybody, and does not learn whether the user has an account: what is asked of others is asked
    /// for a name that nobody has, too.
    ///
    /// # Errors
    /// [`Error::InvalidParam`] for a user of another server; [`Error::Store`]; [`Error::Forbidden`] if an invite fails, when
    /// all were tried.
    ///
    /// SPEC: v1.19 Server-Server API, "Third-party invites".
    pub async fn third_party_bound(self: &Arc<Self>, bound: BoundThirdParty) -> Result<(), Error> {
        if !self.is_local_user(&bound.mxid) {
            return Err(Error::invalid("`mxid` is not a user of this server"));
        }
        let ours = bound.invites.iter().filter(|invite| {
            invite.mxid == bound.mxid
                && invite.signed.get("mxid").and_then(Value::as_str) == Some(bound.mxid.as_str())
                && invite.signed.get("token").is_some_and(Value::is_string)
        });
        let asked = ours.take(MAX_INVITES).map(|invite| async move {
            let asked = self.ask_for_invite(invite).await;
            if let Err(error) = &asked {
                tracing::debug!(%error, room.id = %invite.room_id, "an invite of an address did not become one of a user");
            }
            asked.is_ok()
        });
        if join_all(asked).await.contains(&false) {
            // No more than that: whoever asks may be anybody, and the room is none of their business.
            return Err(Error::forbidden("not every invite that waited for the address became one of the user"));
        }
        Ok(())
    }

    async fn ask_for_invite(self: &Arc<Self>, invite: &PendingInvite) -> Result<(), Error> {
        if self.is_local_user(&invite.sender) {
            if !self.account_exists(&invite.mxid)? {
                return Err(Error::forbidden("whoever is to be invited has no account here"));
            }
            return self.invite_third_party(&invite.sender, &invite.room_id, &invite.mxid, &invite.signed).await;
        }
        let content = json!({"membership": "invite", "third_party_invite": {"signed": invite.signed}});
        let path = format!("/_matrix/federation/v1/exchange_third_party_invite/{}", encode(invite.room_id.as_str()));
        let body = json!({
            "type": "m.room.member",
            "room_id": invite.room_id,
            "sender": invite.sender,
            "state_key": invite.mxid,
            "content": content,
        });
        let server = invite.sender.server_name();
        let _: IgnoredAny =
            self.peer_json(server, Method::Put, path, Some(body), STEP_TIMEOUT, MAX_ANSWER_BYTES).await?;
        Ok(())
    }

    /// The user is invited by proof of an address, in the name of whoever invited the address, who may have left since. The name
    /// that the inviting user was shown is part of it.
    async fn invite_third_party(
        self: &Arc<Self>,
        sender: &OwnedUserId,
        room_id: &RoomId,
        invitee: &OwnedUserId,
        signed: &Value,
    ) -> Result<(), Error> {
        let account = self.account(sender)?;
        if account.is_some_and(|account| account.deactivated || account.locked || account.suspended) {
            return Err(Error::forbidden("the account of whoever invited the address may invite nobody any more"));
        }
        let token = signed.get("token").and_then(Value::as_str).unwrap_or_default();
        let room = self.room_of_ours(room_id)?;
        let room = room.ok_or_else(|| Error::forbidden("this server is in the room no more"))?;
        let known = room.lock().state_pdu(self, "m.room.third_party_invite", token)?;
        let known = known.filter(|invite| invite.sender() == sender);
        let known =
            known.ok_or_else(|| Error::forbidden("this room has no such invite of an address"))?.content_value();
        self.check_proof_of_address(&known, signed).await?;
        let mut proof = json!({"signed": signed});
        if let (Some(name), Value::Object(proof)) = (known.get("display_name"), &mut proof) {
            proof.insert("display_name".to_owned(), name.clone());
        }
        let content = json!({"membership": "invite", "third_party_invite": proof});
        self.send_membership(&room, sender, invitee, content).await.map(|_| ())
    }

    /// The user is invited by the proof of an address that the own client brings with a join, unless already invited.
    ///
    /// # Errors
    /// [`Error::Forbidden`] by the room's rules and by policy; [`Error::BadJson`] for what is no proof; [`Error::Peer`].
    ///
    /// SPEC: v1.19 Client-Server API, `POST /rooms/{roomId}/join`, `third_party_signed`.
    pub(crate) async fn accept_proof_of_address(
        self: &Arc<Self>,
        user: &UserId,
        room_id: &RoomId,
        signed: &Value,
    ) -> Result<(), Error> {
        let standing = self.standing(user, room_id)?.map(|standing| standing.membership);
        if matches!(standing, Some(Membership::Invite | Membership::Join)) {
            return Ok(());
        }
        let sender = signed.get("sender").and_then(Value::as_str).and_then(|id| OwnedUserId::try_from(id).ok());
        let sender = sender.ok_or_else(|| Error::bad_json("`third_party_signed` does not say who invited"))?;
        if signed.get("mxid").and_then(Value::as_str) != Some(user.as_str()) {
            return Err(Error::forbidden("this proof of an address is somebody else's"));
        }
        let invite =
            PendingInvite { mxid: user.to_owned(), room_id: room_id.to_owned(), sender, signed: signed.clone() };
        self.ask_for_invite(&invite).await.map_err(passed_on)
    }

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
            && exchange.content.get("membership").and_then(Value::as_str) == Some("invite");
        let signed = exchange.content.pointer("/third_party_invite/signed").filter(|_| is_invite);
        let signed = signed.ok_or_else(|| Error::invalid("the event is not a third-party invite"))?;
        if !self.is_local_user(&exchange.sender) {
            return Err(Error::forbidden("the inviting user is not of this server"));
        }
        // Nothing else of the content: it would be said in our user's name.
        self.invite_third_party(&exchange.sender, room_id, &exchange.state_key, signed).await
    }
}

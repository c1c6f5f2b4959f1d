//! Inviting somebody by e-mail address or telephone number.
//!
//! If the identity server knows the user whose it is, that user is invited. If not, it keeps the invite, tells the address
//! of it, and gives a token and keys that go into the room: whoever proves later to have the address may come in by them
//! ([`crate::federation::handshake`]). In a room with a policy nobody is invited so.

use std::sync::Arc;

use matron_room::Membership;
use ruma::{RoomId, UserId};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    ask::{IdentityToken, Question, malformed},
    check_address,
    signed::ProofKey,
    trust::Trusted,
};
use crate::{
    Core, Error,
    ports::http_method::Method,
    rooms::{Room, send::NewEvent},
};

/// The state by which a token's bearer may be invited.
const KIND: &str = "m.room.third_party_invite";

/// The longest name for people that an identity server may give an address, bytes.
const MAX_NAME_BYTES: usize = 255;

/// Whom to invite, and who knows them.
#[derive(Clone, Debug, Deserialize)]
pub struct AddressInvite {
    /// The identity server.
    pub id_server: String,
    /// The inviting user's token there.
    pub id_access_token: IdentityToken,
    /// `email` or `msisdn`.
    pub medium: String,
    /// The address.
    pub address: String,
}

/// An invite that an identity server keeps.
#[derive(Deserialize)]
struct StoredInvite {
    token: String,
    display_name: String,
    public_keys: Vec<Value>,
}

impl Core {
    /// Whoever has the address is invited: the user whose it is, or who proves later that it is theirs.
    ///
    /// # Errors
    /// `M_SERVER_NOT_TRUSTED`; [`Error::Forbidden`] by the room's rules; [`Error::PolicyDenied`] by policy, which lets nobody be
    /// invited who has no Matrix id; what the identity server answers.
    pub async fn invite_by_address(
        self: &Arc<Self>,
        sender: &UserId,
        room_id: &RoomId,
        invite: &AddressInvite,
        reason: Option<&str>,
        is_direct: bool,
    ) -> Result<(), Error> {
        let server = self.check_address_invite(invite)?;
        let address = check_address(&invite.medium, &invite.address)?;
        let room = self.open_room(room_id)?;
        self.check_may_invite(&room, sender)?;
        let token = &invite.id_access_token;
        if let Some(user) = self.look_up_address(&server, token, &invite.medium, &address).await? {
            return self.invite(sender, room_id, &user, reason, is_direct).await;
        }
        // INVARIANT: nobody outside hears of an invite that policy refuses, and no letter is sent for it.
        self.permit_address_invite(&room, sender).await?;
        let question = Question {
            method: Method::Post,
            path_and_query: "/_matrix/identity/v2/store-invite".to_owned(),
            proof: token.proof()?,
            body: Some(self.told_of_invite(sender, room_id, &invite.medium, &address)?),
        };
        let stored: StoredInvite = self.ask_identity_server(&server, question).await?;
        let (token, content) = self.invite_content(stored)?;
        self.send_event(NewEvent::state(room_id.to_owned(), sender.to_owned(), KIND, token, content)).await.map(drop)
    }

    /// The identity server of the invite, if it is one that may be asked about such an address.
    ///
    /// # Errors
    /// `M_SERVER_NOT_TRUSTED`; [`Error::InvalidParam`].
    pub(crate) fn check_address_invites(&self, invites: &[AddressInvite]) -> Result<(), Error> {
        invites.iter().try_for_each(|invite| self.check_address_invite(invite).map(drop))
    }

    fn check_address_invite(&self, invite: &AddressInvite) -> Result<Trusted, Error> {
        let server = self.trusted_identity_server(&invite.id_server)?;
        check_address(&invite.medium, &invite.address)?;
        invite.id_access_token.proof()?;
        Ok(server)
    }

    fn check_may_invite(&self, room: &Room, sender: &UserId) -> Result<(), Error> {
        self.require_joined(room, sender)?;
        let levels = room.lock().power_levels(self)?;
        if !levels.can_invite(sender) {
            return Err(Error::forbidden("you may not invite to this room"));
        }
        Ok(())
    }

    /// Policy lets somebody be invited of whom nothing but an address is known. Asked again when the event is sent.
    async fn permit_address_invite(&self, room: &Room, sender: &UserId) -> Result<(), Error> {
        let content = json!({"display_name": ""});
        let new = NewEvent::state(room.id().to_owned(), sender.to_owned(), KIND, "", content);
        let refused = self.permit_local(room, &mut room.lock(), &new).err();
        match refused {
            Some(refusal) => Err(refusal.recorded().await),
            None => Ok(()),
        }
    }

    /// What the identity server may write to the address. The room's name is not among it: it can be a patient's.
    fn told_of_invite(&self, sender: &UserId, room: &RoomId, medium: &str, address: &str) -> Result<Value, Error> {
        let profile = self.member_content(sender, Membership::Invite, None)?;
        let mut told = json!({"medium": medium, "address": address, "room_id": room, "sender": sender});
        if let (Some(name), Value::Object(told)) = (profile.get("displayname"), &mut told) {
            told.insert("sender_display_name".to_owned(), name.clone());
        }
        Ok(told)
    }

    /// The token and the content of the state event.
    ///
    /// SPEC: v1.19 Client-Server API, "m.room.third_party_invite".
    fn invite_content(&self, stored: StoredInvite) -> Result<(String, Value), Error> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".=_-".contains(&byte);
        let is_token = (1..=255).contains(&stored.token.len()) && stored.token.bytes().all(allowed);
        if !is_token || stored.display_name.len() > MAX_NAME_BYTES {
            return Err(malformed());
        }
        let public_keys = Value::Array(stored.public_keys);
        let keys = ProofKey::of_invite(&json!({"public_keys": public_keys}));
        self.check_proof_keys(&keys)?;
        let first = public_keys.get(0).filter(|_| !keys.is_empty()).ok_or_else(malformed)?;
        let content = json!({
            "display_name": stored.display_name,
            "public_key": first.get("public_key"),
            "key_validity_url": first.get("key_validity_url"),
            "public_keys": public_keys,
        });
        Ok((stored.token, content))
    }
}

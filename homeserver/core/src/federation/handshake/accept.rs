//! `send_join`, `send_leave`, `send_knock`: the signed event of a user of another server becomes part of the room.

use std::sync::Arc;

use matron_room::{ContentState, Membership, Pdu, UncheckedPdu};
use ruma::{OwnedEventId, OwnedServerName, OwnedUserId, RoomId, ServerName};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{check_own_membership, format_error, signature_error};
use crate::{
    Core, Error,
    federation::receive::Received,
    rooms::{EventRef, Room, Status},
};

/// The answer to `send_join`: the room.
#[derive(Debug, Serialize)]
pub struct JoinAnswer {
    /// Who answers.
    pub origin: OwnedServerName,
    /// The join, signed by us too where we vouch for it.
    pub event: Pdu,
    /// The state before the join.
    pub state: Vec<Pdu>,
    /// What authorises the join and the state.
    pub auth_chain: Vec<Pdu>,
    /// Whether member events were left out.
    pub members_omitted: bool,
}

/// The answer to `send_knock`.
#[derive(Debug, Serialize)]
pub struct KnockAnswer {
    /// What someone who knocks may see.
    pub knock_room_state: Vec<Pdu>,
}

#[derive(Deserialize)]
struct Authorised {
    join_authorised_via_users_server: Option<OwnedUserId>,
}

impl Core {
    /// The user of another server is joined; gives the room.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a room that this server is not in; [`Error::InvalidParam`] for what is not a join by a user of
    /// the origin, signed by it; [`Error::Forbidden`] by the room's rules; [`Error::UnableToAuthoriseJoin`].
    pub async fn accept_join(
        self: &Arc<Self>,
        origin: &ServerName,
        room_id: &RoomId,
        event_id: &str,
        raw: &RawValue,
    ) -> Result<JoinAnswer, Error> {
        let event = self.accept_membership(origin, room_id, event_id, raw, Membership::Join).await?;
        let core = Arc::clone(self);
        tokio::task::spawn_blocking(move || core.join_answer(&event))
            .await
            .map_err(|_| Error::internal("collecting a room's state failed"))?
    }

    /// The user of another server has left, refused the invite, or withdrawn the knock.
    ///
    /// # Errors
    /// As [`Core::accept_join`].
    pub async fn accept_leave(
        self: &Arc<Self>,
        origin: &ServerName,
        room_id: &RoomId,
        event_id: &str,
        raw: &RawValue,
    ) -> Result<(), Error> {
        self.accept_membership(origin, room_id, event_id, raw, Membership::Leave).await.map(|_| ())
    }

    /// The user of another server has knocked; gives what someone who knocks may see.
    ///
    /// # Errors
    /// As [`Core::accept_join`].
    pub async fn accept_knock(
        self: &Arc<Self>,
        origin: &ServerName,
        room_id: &RoomId,
        event_id: &str,
        raw: &RawValue,
    ) -> Result<KnockAnswer, Error> {
        self.accept_membership(origin, room_id, event_id, raw, Membership::Knock).await?;
        let room = self.room_for_peer(origin, room_id)?;
        let mut inner = room.lock();
        Ok(KnockAnswer { knock_room_state: self.stripped_state_events(&mut inner)? })
    }

    async fn accept_membership(
        self: &Arc<Self>,
        origin: &ServerName,
        room_id: &RoomId,
        event_id: &str,
        raw: &RawValue,
        membership: Membership,
    ) -> Result<EventRef, Error> {
        let room = self.room_for_peer(origin, room_id)?;
        let unchecked = UncheckedPdu::parse(raw, room.version()).map_err(|error| format_error(&error))?;
        check_own_membership(unchecked.unverified(), origin, room_id, event_id, membership)?;
        let unchecked = self.vouched(&room, origin, unchecked).await?;
        let keys = self.keys_for_event(&unchecked).await?;
        let signed = unchecked.verify(&keys).map_err(|error| signature_error(&error))?;
        if signed.content() == ContentState::Redacted {
            return Err(Error::invalid("the event's content hash is wrong"));
        }
        let pdu = signed.into_pdu();
        let id = pdu.event_id().to_owned();
        self.permit_admission(&room, &pdu, membership).await?;
        let turn = self.inbound.room_turn(room_id);
        let _turn = turn.lock().await;
        let received = self.receive_and_relay(origin, &room, pdu, true, true).await?;
        let event = self.load_event(&id)?.ok_or_else(|| Error::internal("an event that was just kept is not there"))?;
        match (received, event.record.status) {
            (Received::Kept(Status::Accepted) | Received::Known, Status::Accepted) => Ok(event),
            _ => Err(self.why_not_admitted(&room, &event)?),
        }
    }

    /// What the other server is told of its user's event that was not accepted. The room's policy server is spoken of to those
    /// alone whom the room's rules would let do this: it is nobody else's business. What this server's own policy refuses was
    /// told before.
    fn why_not_admitted(&self, room: &Room, event: &EventRef) -> Result<Error, Error> {
        let vague = Error::forbidden("the room as it stands does not allow this");
        if event.record.status != Status::SoftFailed {
            return Ok(vague);
        }
        let allowed = self.authorise(&mut room.lock(), &event.pdu);
        match allowed {
            Ok(()) => Ok(self.why_not_recommended(room, &event.pdu)?.map_or(vague, Error::forbidden)),
            Err(Error::Forbidden(_)) => Ok(vague),
            Err(error) => Err(error),
        }
    }

    /// The event with our signature, if it names a user of ours as its voucher and the room's rules let us vouch.
    async fn vouched(&self, room: &Room, origin: &ServerName, unchecked: UncheckedPdu) -> Result<UncheckedPdu, Error> {
        let needs_us = unchecked.required_servers().contains(&self.server_name);
        let voucher = unchecked.unverified().content_as::<Authorised>().ok();
        let voucher = voucher.and_then(|content| content.join_authorised_via_users_server);
        let Some(voucher) = voucher.filter(|voucher| needs_us && self.is_local_user(voucher)) else {
            return Ok(unchecked);
        };
        let keys = self.keys_of_signer(origin, &unchecked).await?;
        unchecked.verify_server(origin, &keys).map_err(|error| signature_error(&error))?;
        {
            let mut inner = room.lock();
            self.join_gate(room, &mut inner, unchecked.sender())?;
            let levels = inner.power_levels(self)?;
            if !inner.joined.contains(&voucher) || !levels.can_invite(&voucher) {
                return Err(Error::UnableToGrantJoin("the user who should vouch for the join cannot invite".into()));
            }
        }
        let version = room.version();
        let signed = unchecked
            .trust_own()
            .with_signature(&self.signing_key, &self.server_name)
            .map_err(|error| Error::internal(error.to_string()))?;
        UncheckedPdu::parse(signed.json(), version).map_err(|error| Error::internal(error.to_string()))
    }

    fn join_answer(&self, join: &EventRef) -> Result<JoinAnswer, Error> {
        let before = self.load_state_group(join.record.state_before)?;
        let state = self.load_events(before.values().map(|id| &***id))?;
        let authorities: Vec<OwnedEventId> =
            state.iter().chain([join]).flat_map(|event| event.pdu.auth_event_ids_with_create()).collect();
        let chain = self.auth_chain(authorities.iter().map(|id| &**id))?;
        let mut auth_chain = self.load_events(chain.iter().map(|id| &**id))?;
        // Each after what authorises it, so that it can be read in one pass.
        auth_chain.sort_by_key(|event| (event.pdu.depth(), event.record.timeline));
        Ok(JoinAnswer {
            origin: self.server_name.clone(),
            event: join.pdu.clone(),
            state: state.iter().map(|event| event.pdu.clone()).collect(),
            auth_chain: auth_chain.iter().map(|event| event.pdu.clone()).collect(),
            members_omitted: false,
        })
    }
}

//! Inviting, the invitees of other servers included.

use std::sync::Arc;

use matron_room::{Membership, Pdu};
use matron_storage::CommitError;
use ruma::{OwnedEventId, RoomId, UserId};
use serde_json::{Value, json};

use crate::{
    Core, Error,
    rooms::{
        Room,
        append::{Append, Appending},
        room::Inner,
        send::NewEvent,
        state_map::{GroupId, StateKey},
    },
};

impl Core {
    /// The invitee is invited, on whatever server.
    ///
    /// # Errors
    /// [`Error::Forbidden`] by the room's rules, [`Error::PolicyDenied`] by policy, [`Error::Peer`] if the
    /// invitee's server cannot be reached or refuses.
    pub async fn invite(
        self: &Arc<Self>,
        sender: &UserId,
        room_id: &RoomId,
        invitee: &UserId,
        reason: Option<&str>,
        is_direct: bool,
    ) -> Result<(), Error> {
        let mut content = self.member_content(invitee, Membership::Invite, reason)?;
        if let (true, Value::Object(content)) = (is_direct, &mut content) {
            content.insert("is_direct".to_owned(), json!(true));
        }
        self.set_membership(sender, room_id, invitee, content).await.map(drop)
    }

    pub(super) async fn invite_remote(
        self: &Arc<Self>,
        room: &Arc<Room>,
        new: NewEvent,
        target: &UserId,
    ) -> Result<OwnedEventId, Error> {
        let (pdu, state_before, stripped) = {
            let sealed = {
                let mut inner = room.lock();
                match self.permit_local(room, &mut inner, &new) {
                    Err(refusal) => Err(refusal),
                    Ok(_asked_again_at_the_commit) => self
                        .seal_local(room, &mut inner, &new)
                        .and_then(|pdu| self.authorise(&mut inner, &pdu).map(|()| pdu))
                        .and_then(|pdu| {
                            let mut stripped = self.stripped_state_events(&mut inner)?;
                            stripped.extend(inner.state_pdu(self, "m.room.member", new.sender.as_str())?);
                            Ok((pdu, GroupId(inner.head.group.0), stripped))
                        })
                        .map_err(Into::into),
                }
            };
            match sealed {
                Ok(sealed) => sealed,
                Err(refusal) => return Err(refusal.recorded().await),
            }
        };
        let pdu = self.recommended_to_send(room, pdu).await?;
        // The invitee's server signs before anyone else sees the invite.
        let signed = self.send_invite_to_server(&pdu, &stripped, target.server_name()).await?;
        let appended = {
            let mut inner = room.lock();
            self.append_sealed(room, &mut inner, &new, signed, state_before)
        };
        let appending = match appended {
            Ok(appending) => appending,
            Err(refusal) => return Err(refusal.recorded().await),
        };
        match self.finish_append(appending).await {
            Ok(event) => Ok(event.id().to_owned()),
            Err(CommitError::Conflict(_)) => Err(Error::LimitExceeded { retry_after_ms: 500 }),
            Err(error) => Err(error.into()),
        }
    }

    /// An event that was sealed before is on its way, if it still may be.
    pub(in crate::rooms) fn append_sealed(
        &self,
        room: &Arc<Room>,
        inner: &mut Inner,
        new: &NewEvent,
        pdu: Pdu,
        state_before: GroupId,
    ) -> Result<Appending, crate::governance::Refusal> {
        self.authorise(inner, &pdu)?;
        let permit = self.permit_local(room, inner, new)?;
        let mut after = inner.current.clone();
        if let Some(key) = pdu.state_key() {
            after.insert(StateKey::new(pdu.kind(), key), Arc::new(pdu.event_id().to_owned()));
        }
        let mut item = Append::local(pdu, state_before, Some(after));
        item.txn = new.txn.as_ref().map(crate::rooms::send::Txn::key);
        item.also_to.clone_from(&new.also_to);
        permit.write(&mut item.with)?;
        let appending = self.append(room, inner, item)?;
        permit.submitted();
        Ok(appending)
    }
}

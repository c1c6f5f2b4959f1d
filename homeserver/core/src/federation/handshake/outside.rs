//! What happens to an invite or a knock while this server is not in the room: it is taken back, refused, or answered by a ban.

use std::sync::Arc;

use matron_room::{Membership, RoomVersion, UncheckedPdu};
use ruma::{OwnedEventId, OwnedUserId, RoomId, ServerName};
use serde_json::value::RawValue;

use super::stripped::StrippedRoom;
use crate::{Core, Error};

impl Core {
    /// An event of a room that this server is not in: if it ends the invite or knock of a user of ours, the user sees so.
    /// `None` for every other event.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(crate) async fn receive_outside_room(
        self: &Arc<Self>,
        origin: &ServerName,
        room_id: &RoomId,
        raw: &RawValue,
    ) -> Result<Option<OwnedEventId>, Error> {
        let Some(user) = concerned_user(raw).filter(|user| self.is_local_user(user)) else { return Ok(None) };
        let standing = self.standing(&user, room_id)?;
        let Some(standing) =
            standing.filter(|standing| matches!(standing.membership, Membership::Invite | Membership::Knock))
        else {
            return Ok(None);
        };
        let Some(stripped) = self.load_stripped(&user, room_id)? else { return Ok(None) };
        let Some(version) = RoomVersion::find(&stripped.room_version) else { return Ok(None) };
        let Ok(unchecked) = UncheckedPdu::parse(raw, version) else { return Ok(None) };
        let pdu = unchecked.unverified();
        let ends = matches!(pdu.membership_state(), Some(Membership::Leave | Membership::Ban));
        // The room's rules cannot be checked from outside: the inviter's server, or one that was asked for the knock, decides.
        let entitled =
            standing.sender.as_ref().is_some_and(|sender| sender.server_name() == pdu.sender().server_name())
                || stripped.servers.iter().any(|server| server == pdu.sender().server_name())
                || stripped.servers.iter().any(|server| server == origin);
        if !ends || !entitled || pdu.room_id() != room_id || pdu.state_key() != Some(user.as_str()) {
            return Ok(None);
        }
        let keys = self.keys_for_event(&unchecked).await?;
        let Ok(signed) = unchecked.verify(&keys) else { return Ok(None) };
        let pdu = signed.into_pdu();
        let membership = pdu.membership_state().unwrap_or(Membership::Leave);
        let ended = StrippedRoom {
            room_version: version.as_str().to_owned(),
            event: Some(pdu.json().to_owned()),
            ..StrippedRoom::default()
        };
        self.set_outside_standing(&user, room_id, membership, pdu.sender().to_owned(), ended).await?;
        Ok(Some(pdu.event_id().to_owned()))
    }
}

fn concerned_user(raw: &RawValue) -> Option<OwnedUserId> {
    #[derive(serde::Deserialize)]
    struct Member {
        #[serde(rename = "type")]
        kind: String,
        state_key: Option<String>,
    }
    let member: Member = serde_json::from_str(raw.get()).ok()?;
    (member.kind == "m.room.member").then_some(())?;
    OwnedUserId::try_from(member.state_key?).ok()
}

//! Kicking, banning and unbanning: one removal, each with its own condition.

use std::sync::Arc;

use matron_room::Membership;
use ruma::{RoomId, UserId};
use serde_json::{Value, json};

use crate::{Core, Error, rooms::send::NewEvent};

impl Core {
    /// A joined user was removed, an invite or knock refused.
    ///
    /// # Errors
    /// [`Error::Forbidden`] if the target is not there, or by the power levels.
    pub async fn kick(
        self: &Arc<Self>,
        sender: &UserId,
        room_id: &RoomId,
        target: &UserId,
        reason: Option<&str>,
    ) -> Result<(), Error> {
        self.remove(sender, room_id, target, Membership::Leave, reason, |membership| match membership {
            Membership::Join | Membership::Invite | Membership::Knock => Ok(()),
            Membership::Leave | Membership::Ban => Err(Error::forbidden("this user is not in the room")),
        })
        .await
    }

    /// The user is banned.
    ///
    /// # Errors
    /// [`Error::Forbidden`] by the power levels.
    pub async fn ban(
        self: &Arc<Self>,
        sender: &UserId,
        room_id: &RoomId,
        target: &UserId,
        reason: Option<&str>,
    ) -> Result<(), Error> {
        self.remove(sender, room_id, target, Membership::Ban, reason, |_whatever_it_was| Ok(())).await
    }

    /// The user is banned no more.
    ///
    /// # Errors
    /// [`Error::Forbidden`] by the power levels; [`Error::BadState`] if the user is not banned.
    pub async fn unban(
        self: &Arc<Self>,
        sender: &UserId,
        room_id: &RoomId,
        target: &UserId,
        reason: Option<&str>,
    ) -> Result<(), Error> {
        self.remove(sender, room_id, target, Membership::Leave, reason, |membership| match membership {
            Membership::Ban => Ok(()),
            _ => Err(Error::BadState("this user is not banned".into())),
        })
        .await
    }

    /// The target's membership is the new one, if the condition holds for the one it had.
    async fn remove(
        self: &Arc<Self>,
        sender: &UserId,
        room_id: &RoomId,
        target: &UserId,
        becomes: Membership,
        reason: Option<&str>,
        condition: impl FnOnce(Membership) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let room = self.open_room(room_id)?;
        self.require_joined(&room, sender)?;
        let membership = room.lock().membership(self, target)?;
        condition(membership)?;
        let mut content = json!({"membership": becomes.as_str()});
        if let (Some(reason), Value::Object(content)) = (reason, &mut content) {
            content.insert("reason".to_owned(), json!(reason));
        }
        let mut new = NewEvent::state(room_id.to_owned(), sender.to_owned(), "m.room.member", target.as_str(), content);
        if !self.is_local_user(target) {
            new.also_to.insert(target.server_name().to_owned());
        }
        self.send_event(new).await.map(drop)
    }
}

//! A room is taken away from this server's users.

use std::sync::Arc;

use matron_room::Membership;
use matron_storage::{Batch, Key, Table};
use ruma::{OwnedRoomAliasId, OwnedRoomId, OwnedUserId, RoomId, UserId};
use serde::Serialize;
use serde_json::json;

use super::PurgeUpTo;
use crate::{
    Core, Error, Requester,
    rooms::{create::CreateRoom, send::NewEvent},
};

/// What else happens when a room is removed.
#[derive(Clone, Debug, Default)]
pub struct RemoveRoom {
    /// Nobody here may join it again.
    pub block: bool,
    /// What was said in it is gone.
    pub purge: bool,
    /// This user makes a new room for those who were in it, and says why.
    pub new_room_user_id: Option<OwnedUserId>,
    /// The new room's name.
    pub room_name: Option<String>,
    /// What is said there.
    pub message: Option<String>,
}

/// What the removal of a room did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Removed {
    /// Who was in it, and is no longer.
    pub kicked_users: Vec<OwnedUserId>,
    /// Who could not be taken out.
    pub failed_to_kick_users: Vec<OwnedUserId>,
    /// Which names it had here.
    pub local_aliases: Vec<OwnedRoomAliasId>,
    /// The room that was made instead.
    pub new_room_id: Option<OwnedRoomId>,
}

fn block_key(room: &RoomId) -> Key {
    Key::new().text("blocked_room").text(room)
}

impl Core {
    /// The removal has begun; the task's id.
    ///
    /// # Errors
    /// `M_NOT_FOUND` for an unknown room, unless it shall only be blocked; as tasks begin.
    pub fn begin_remove_room(
        self: &Arc<Self>,
        requester: &Requester,
        room: &RoomId,
        how: RemoveRoom,
    ) -> Result<String, Error> {
        if !how.block {
            self.open_room(room)?;
        }
        let id = self.begin_task(room, true)?;
        let (core, task, room, requester) = (Arc::clone(self), id.clone(), room.to_owned(), requester.clone());
        tokio::spawn(async move {
            let outcome = core.remove_room(&requester, &room, how).await;
            core.end_task(&task, outcome.map(Some));
        });
        Ok(id)
    }

    /// This server's users are out of the room, its names and its listing are gone; with `purge`, what was said in it and
    /// the keys that sealed it too. Its graph stays as skeletons, so that other servers are answered.
    ///
    /// # Errors
    /// `M_NOT_FOUND` for an unknown room, unless it shall only be blocked; [`Error::Store`].
    pub async fn remove_room(
        self: &Arc<Self>,
        requester: &Requester,
        room: &RoomId,
        how: RemoveRoom,
    ) -> Result<Removed, Error> {
        if how.block {
            self.set_room_blocked(room, Some(&requester.user_id)).await?;
        }
        if self.find_room(room)?.is_none() {
            return if how.block { Ok(Removed::default()) } else { Err(Error::not_found("this room is not known")) };
        }
        let mut removed = Removed::default();
        let members: Vec<OwnedUserId> = self
            .room_users(room)?
            .into_iter()
            .filter(|(user, standing)| {
                let inside = matches!(standing.membership, Membership::Join | Membership::Invite | Membership::Knock);
                self.is_local_user(user) && inside
            })
            .map(|(user, _)| user)
            .collect();
        removed.new_room_id = self.make_room_instead(&how, &members).await?;
        for user in members {
            match self.leave_room(&user, room, None).await {
                Ok(()) => removed.kicked_users.push(user),
                Err(error) => {
                    tracing::warn!(%error, room.id = %room, "a user could not be taken out of a room");
                    removed.failed_to_kick_users.push(user);
                }
            }
        }
        for alias in self.aliases_of(room)? {
            self.delete_alias(requester, &alias).await?;
            removed.local_aliases.push(alias);
        }
        self.publish_room(room, false).await?;
        if how.purge {
            self.purge_history(room, PurgeUpTo::Everything, true).await?;
            if removed.failed_to_kick_users.is_empty() {
                self.empty_room(room).await?;
            }
        }
        Ok(removed)
    }

    async fn make_room_instead(
        self: &Arc<Self>,
        how: &RemoveRoom,
        members: &[OwnedUserId],
    ) -> Result<Option<OwnedRoomId>, Error> {
        let Some(creator) = &how.new_room_user_id else { return Ok(None) };
        let request = CreateRoom {
            name: Some(how.room_name.clone().unwrap_or_else(|| "Content Violation Notification".to_owned())),
            preset: Some("private_chat".to_owned()),
            invite: members.iter().filter(|user| *user != creator).cloned().collect(),
            ..CreateRoom::default()
        };
        let room = self.create_room(creator, request).await?;
        let why = how.message.as_deref().unwrap_or("Sharing illegal content on this server is not permitted.");
        let content = json!({ "msgtype": "m.text", "body": why });
        self.send_event(NewEvent::message(room.clone(), creator.clone(), "m.room.message", content)).await?;
        Ok(Some(room))
    }

    /// What is derived from the room is gone, and the keys of its content.
    async fn empty_room(&self, room: &RoomId) -> Result<(), Error> {
        let of_room = Key::new().text(room).prefix();
        let mut batch = Batch::new();
        for table in [Table::RoomReceipt, Table::RoomRelation, Table::RoomThread, Table::EventRedactionDue] {
            batch.delete_range(table, of_room.clone());
        }
        let users: Vec<OwnedUserId> =
            self.room_users(room)?.into_keys().filter(|user| self.is_local_user(user)).collect();
        for user in &users {
            batch.delete_range(Table::RoomNotification, Key::new().text(user).text(room).prefix());
        }
        self.commit(batch).await?;
        for user in &users {
            self.forget_room(user, room).await?;
        }
        self.destroy_past_keys(room)
    }

    /// Nobody here may join the room, by the word of this operator; or everybody may again.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn set_room_blocked(&self, room: &RoomId, by: Option<&UserId>) -> Result<(), Error> {
        let mut batch = Batch::new();
        match by {
            Some(by) => batch.put(Table::Misc, block_key(room), crate::house::to_json(by)?),
            None => batch.delete(Table::Misc, block_key(room)),
        };
        self.commit(batch).await.map(drop)
    }

    /// Who blocked the room, if anybody did.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn room_blocked_by(&self, room: &RoomId) -> Result<Option<OwnedUserId>, Error> {
        self.load(Table::Misc, &block_key(room))
    }

    /// Passes for a room that may be joined.
    ///
    /// # Errors
    /// `M_FORBIDDEN`.
    pub(crate) fn check_room_not_blocked(&self, room: &RoomId) -> Result<(), Error> {
        match self.room_blocked_by(room)? {
            Some(_) => Err(Error::forbidden("the operator of this server has blocked this room")),
            None => Ok(()),
        }
    }
}

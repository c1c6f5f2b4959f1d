//! What is known of a room that this server is not in: the stripped state of an invite or a knock.

use matron_room::{Membership, Pdu, RoomVersion, UncheckedPdu};
use matron_storage::{Batch, Key, StreamPos, Table};
use ruma::{OwnedServerName, OwnedUserId, RoomId, UserId};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{Core, Error, house::to_json, rooms::UserRoom};

/// How many pieces of state are kept of one invite or knock.
pub(super) const MAX_STRIPPED: usize = 50;

/// A row of `room_stripped`. `invite_state` and `knock_state` are what a sync tells.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct StrippedRoom {
    /// For an invite.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub invite_state: Vec<Box<RawValue>>,
    /// For a knock.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub knock_state: Vec<Box<RawValue>>,
    /// The room's version.
    pub room_version: String,
    /// Servers that are in it.
    pub servers: Vec<OwnedServerName>,
    /// The member event that says so.
    pub event: Option<Box<RawValue>>,
}

/// How a user stands in a room that this server is not in.
pub(crate) struct OutsideStanding {
    /// The member event that says so.
    pub(crate) event: Pdu,
    /// What an invite told of the room.
    pub(crate) shown: Vec<Box<RawValue>>,
}

impl Core {
    /// What is known of the room from the user's invite or knock.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(super) fn load_stripped(&self, user: &UserId, room: &RoomId) -> Result<Option<StrippedRoom>, Error> {
        self.load(Table::RoomStripped, &Key::new().text(user).text(room))
    }

    /// The user's standing in a room that this server is not in is the new one, and the user's devices hear of it.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(super) async fn set_outside_standing(
        &self,
        user: &UserId,
        room: &RoomId,
        membership: Membership,
        sender: OwnedUserId,
        stripped: StrippedRoom,
    ) -> Result<(), Error> {
        let mut batch = Batch::new();
        let index = batch.reserve_position();
        let standing =
            UserRoom { position: StreamPos(0), membership, event_id: None, sender: Some(sender), forgotten: false };
        self.write_standing(&mut batch, room, user, &standing, index)?;
        batch.put(Table::RoomStripped, Key::new().text(user).text(room), to_json(&stripped)?);
        self.batch_for_services(&mut batch, user, room);
        // INVARIANT: announced before it is submitted, so that no sync steps over it.
        let guard = self.rooms.changes.begin(room, &[user.to_owned()]);
        let committed = self.commit(batch).await?;
        self.rooms.forget_user(user);
        guard.publish(committed.last());
        self.notifier.wake_user(user);
        self.wake_services_of(user);
        Ok(())
    }

    /// The event with which the user left a room that this server was not in: an invite refused or taken back, a knock
    /// withdrawn or turned down.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(crate) fn outside_leave(&self, user: &UserId, room: &RoomId) -> Result<Option<Pdu>, Error> {
        let standing = self.outside_standing(user, room)?.map(|standing| standing.event);
        Ok(standing.filter(|event| matches!(event.membership_state(), Some(Membership::Leave | Membership::Ban))))
    }

    /// How the user stands in a room that this server is not in.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(crate) fn outside_standing(&self, user: &UserId, room: &RoomId) -> Result<Option<OutsideStanding>, Error> {
        let Some(stripped) = self.load_stripped(user, room)? else { return Ok(None) };
        let Some(version) = RoomVersion::find(&stripped.room_version) else { return Ok(None) };
        let event = stripped.event.and_then(|raw| UncheckedPdu::parse(&raw, version).ok());
        // It was verified, or made here, before it was kept.
        Ok(event.map(|event| OutsideStanding { event: event.trust_own(), shown: stripped.invite_state }))
    }

    /// What an invite or knock told of the room is forgotten, because the user is in it.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(super) async fn forget_stripped(&self, user: &UserId, room: &RoomId) -> Result<(), Error> {
        let key = Key::new().text(user).text(room);
        if self.store.get(Table::RoomStripped, key.as_bytes())?.is_none() {
            return Ok(());
        }
        let mut batch = Batch::new();
        batch.delete(Table::RoomStripped, key);
        self.commit(batch).await.map(|_| ())
    }
}

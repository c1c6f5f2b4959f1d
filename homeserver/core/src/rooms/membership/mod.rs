//! Joining, leaving, inviting, kicking, banning, knocking, forgetting: a file each.

mod follow;
mod invite;
mod join;
mod knock;
mod leave;
mod remove;

use std::{collections::BTreeSet, sync::Arc};

use matron_room::{Membership, Pdu};
use matron_storage::{Key, Table};
use ruma::{OwnedEventId, OwnedServerName, RoomId, UserId};
use serde_json::{Value, json};

pub use self::join::{JoinGate, JoinOptions};
use super::{Room, UserRoom, room::Inner, send::NewEvent};
use crate::{Core, Error};

impl Core {
    /// The content of a member event for a local user: membership, profile, credential.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn member_content(&self, user: &UserId, membership: Membership, reason: Option<&str>) -> Result<Value, Error> {
        let mut content = serde_json::Map::new();
        content.insert("membership".to_owned(), json!(membership.as_str()));
        if self.is_local_user(user) && matches!(membership, Membership::Join | Membership::Invite | Membership::Knock) {
            for field in ["displayname", "avatar_url"] {
                let value: Option<Value> = self.load(Table::UserProfile, &Key::new().text(user).text(field))?;
                if let Some(value) = value.filter(|value| !value.is_null()) {
                    content.insert(field.to_owned(), value);
                }
            }
            if membership != Membership::Invite
                && let Some(credential) = self.credential_content(user)?
            {
                content.insert(matron_policy::CREDENTIAL_FIELD.to_owned(), credential);
            }
        }
        if let Some(reason) = reason {
            content.insert("reason".to_owned(), json!(reason));
        }
        Ok(Value::Object(content))
    }

    /// The user's membership is what the content says, set by the sender: invite, kick, ban, unban, or a change
    /// of one's own. What `PUT /state/m.room.member` does.
    ///
    /// # Errors
    /// As for each of them.
    pub async fn set_membership(
        self: &Arc<Self>,
        sender: &UserId,
        room_id: &RoomId,
        target: &UserId,
        content: Value,
    ) -> Result<OwnedEventId, Error> {
        let room = self.open_room(room_id)?;
        self.require_joined(&room, sender)?;
        let content = self.with_own_credential(sender, target, content)?;
        self.send_membership(&room, sender, target, content).await
    }

    /// As [`Core::set_membership`], whether or not the sender is in the room: the room's rules say whether that is needed.
    ///
    /// # Errors
    /// As for each of them.
    pub(crate) async fn send_membership(
        self: &Arc<Self>,
        room: &Arc<Room>,
        sender: &UserId,
        target: &UserId,
        content: Value,
    ) -> Result<OwnedEventId, Error> {
        let new = NewEvent::state(room.id().to_owned(), sender.to_owned(), "m.room.member", target.as_str(), content);
        let invites = new.content.get("membership").and_then(Value::as_str) == Some("invite");
        if !invites {
            return self.send_event(new).await;
        }
        if self.is_local_user(target) {
            if !self.ask_for_user(target).await? {
                tracing::debug!("an invite names a local user without an account");
            }
            return self.send_event(new).await;
        }
        self.invite_remote(room, new, target).await
    }

    /// Nothing, if the user is joined.
    ///
    /// # Errors
    /// [`Error::Forbidden`] otherwise.
    pub fn require_joined(&self, room: &Room, user: &UserId) -> Result<(), Error> {
        if room.lock().joined.contains(user) {
            return Ok(());
        }
        Err(Error::forbidden("you are not in this room"))
    }

    /// The state that an invited or knocking user may see, as full events.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(crate) fn stripped_state_events(&self, inner: &mut Inner) -> Result<Vec<Pdu>, Error> {
        const SHOWN: [&str; 9] = [
            "m.room.create",
            "m.room.join_rules",
            "m.room.canonical_alias",
            "m.room.name",
            "m.room.topic",
            "m.room.avatar",
            "m.room.encryption",
            // Whether a guest may accept: their own server alone knows that they are one.
            "m.room.guest_access",
            "org.matron.room.policy",
        ];
        let mut events = Vec::new();
        for kind in SHOWN {
            events.extend(inner.state_pdu(self, kind, "")?);
        }
        Ok(events)
    }

    /// The servers that may know of a room of which this server only has the id.
    #[must_use]
    pub fn candidate_servers(
        &self,
        room_id: &RoomId,
        via: &[OwnedServerName],
        standing: Option<&UserRoom>,
    ) -> Vec<OwnedServerName> {
        let mut seen = BTreeSet::new();
        via.iter()
            .cloned()
            .chain(standing.and_then(|standing| standing.sender.as_ref()).map(|sender| sender.server_name().to_owned()))
            .chain(room_id.server_name().map(ToOwned::to_owned))
            .filter(|server| *server != self.server_name && seen.insert(server.clone()))
            .collect()
    }
}

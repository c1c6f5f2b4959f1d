//! The state that a user may see, and setting it.

use std::sync::Arc;

use matron_room::Membership;
use ruma::{OwnedEventId, RoomId, UserId};
use serde_json::Value;

use crate::{
    Core, Error,
    rooms::{EventRef, StateKey, StateMap, send::NewEvent},
};

impl Core {
    /// The state of the room as the user may see it: as it is for members, as it was for those who left.
    ///
    /// # Errors
    /// [`Error::Forbidden`] for anyone else, the banned included, unless the room is world readable.
    pub fn visible_state(&self, user: &UserId, room_id: &RoomId) -> Result<StateMap, Error> {
        let room = self.find_room(room_id)?.ok_or_else(|| Error::forbidden("you are not in this room"))?;
        let current = room.current();
        if room.lock().joined.contains(user) {
            return Ok(current);
        }
        if self.is_open_to_the_world(&room)? {
            return Ok(current);
        }
        let standing = self.standing(user, room_id)?.filter(|standing| !standing.forgotten);
        if let Some(standing) = standing
            && standing.membership == Membership::Leave
            && let Some(leaving) = &standing.event_id
            && let Some(leaving) = self.load_event(leaving)?
        {
            let mut then = self.load_state_group(leaving.record.state_before)?;
            if self.membership_in(&then, user)? == Membership::Join {
                then.insert(StateKey::new("m.room.member", user.as_str()), Arc::new(leaving.id().to_owned()));
                return Ok(then);
            }
        }
        Err(Error::forbidden("you are not in this room"))
    }

    /// The state events that the user may see.
    ///
    /// # Errors
    /// As [`Core::visible_state`].
    pub fn room_state(&self, user: &UserId, room: &RoomId) -> Result<Vec<EventRef>, Error> {
        let state = self.visible_state(user, room)?;
        self.load_events(state.values().map(|id| &***id))
    }

    /// One piece of the state that the user may see.
    ///
    /// # Errors
    /// As [`Core::visible_state`]; [`Error::NotFound`] if there is none.
    pub fn room_state_event(&self, user: &UserId, room: &RoomId, kind: &str, key: &str) -> Result<EventRef, Error> {
        let state = self.visible_state(user, room)?;
        let missing = || Error::not_found("the room has no such state");
        let id = state.get(&StateKey::new(kind, key)).ok_or_else(missing)?;
        self.load_event(id)?.ok_or_else(missing)
    }

    /// The state is set; membership changes go the way of membership changes.
    ///
    /// # Errors
    /// As [`Core::send_event`], [`Core::set_membership`]; [`Error::BadAlias`] for aliases that lead elsewhere.
    pub async fn set_state(
        self: &Arc<Self>,
        user: &UserId,
        room: &RoomId,
        kind: &str,
        key: &str,
        content: Value,
        origin_server_ts_ms: Option<u64>,
    ) -> Result<OwnedEventId, Error> {
        match kind {
            "m.room.create" => return Err(Error::forbidden("a room is created once")),
            "m.room.member" => {
                let target = <&UserId>::try_from(key).map_err(|_| Error::bad_json("the state key is not a user id"))?;
                return self.set_member_state(user, room, target, content).await;
            }
            "m.room.canonical_alias" => self.check_canonical_alias(room, &content).await?,
            _ => {}
        }
        let mut new = NewEvent::state(room.to_owned(), user.to_owned(), kind, key, content);
        new.origin_server_ts_ms = origin_server_ts_ms;
        self.send_event(new).await
    }

    async fn set_member_state(
        self: &Arc<Self>,
        user: &UserId,
        room: &RoomId,
        target: &UserId,
        content: Value,
    ) -> Result<OwnedEventId, Error> {
        let membership = content.get("membership").and_then(Value::as_str).and_then(Membership::parse);
        let Some(membership) = membership else { return Err(Error::bad_json("this membership is not known")) };
        let joined = self.is_joined(user, room)?;
        if user == target && !joined && matches!(membership, Membership::Join | Membership::Leave) {
            let reason = content.get("reason").and_then(Value::as_str).map(ToOwned::to_owned);
            if membership == Membership::Join {
                let content = content.as_object().cloned().unwrap_or_default();
                let options = crate::rooms::membership::JoinOptions { reason, content, ..Default::default() };
                self.join_room(user, room, options).await?;
            } else {
                self.leave_room(user, room, reason.as_deref()).await?;
            }
            let standing = self.standing(user, room)?.and_then(|standing| standing.event_id);
            return standing.ok_or_else(|| Error::internal("a membership that was just set is not there"));
        }
        if user == target && !joined {
            return Err(Error::forbidden("you are not in this room"));
        }
        self.set_membership(user, room, target, content).await
    }
}

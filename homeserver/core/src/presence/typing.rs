//! Who types where.
//!
//! Spec: <https://spec.matrix.org/v1.19/client-server-api/#typing-notifications>.

use std::collections::{BTreeMap, BTreeSet};

use ruma::{OwnedRoomId, OwnedUserId, RoomId, ServerName, UserId};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{Core, Error, outbox::Subject};

/// How long typing lasts when the client does not say, ms.
const DEFAULT_TIMEOUT_MS: u64 = 30_000;

/// How long typing lasts at most without being said again, ms.
const MAX_TIMEOUT_MS: u64 = 120_000;

/// How long it is remembered that a room fell silent, ms; clients end typing by themselves much sooner.
const SILENCE_KEPT_MS: u64 = 10 * 60_000;

/// How many rooms are kept.
const MAX_ROOMS: usize = 50_000;

/// How many may type in one room.
const MAX_TYPING: usize = 200;

/// Who types in one room.
#[derive(Clone, Debug, Default)]
pub(super) struct RoomTyping {
    serial: u64,
    changed_ms: u64,
    /// User to when it ends, ms since the epoch.
    users: BTreeMap<OwnedUserId, u64>,
}

#[derive(Deserialize)]
struct Typing {
    room_id: OwnedRoomId,
    user_id: OwnedUserId,
    typing: bool,
}

impl Core {
    /// The user types in the room for that long, or does not any more; everyone in the room hears of it.
    ///
    /// # Errors
    /// `M_FORBIDDEN` for who is not in the room, [`Error::Store`].
    pub async fn set_typing(
        &self,
        user: &UserId,
        room: &RoomId,
        typing: bool,
        timeout_ms: Option<u64>,
    ) -> Result<(), Error> {
        if !self.is_joined(user, room)? {
            return Err(Error::forbidden("you are not in this room"));
        }
        let timeout_ms = timeout_ms.unwrap_or(DEFAULT_TIMEOUT_MS).min(MAX_TIMEOUT_MS);
        if !self.note_typing(user, room, typing.then_some(timeout_ms)) {
            return Ok(());
        }
        self.wake_room(room)?;
        let content = json!({ "room_id": room, "user_id": user, "typing": typing });
        for server in self.joined_servers(room)? {
            self.tell_in_passing(&server, Subject::Typing(room.to_owned(), user.to_owned()), content.clone());
        }
        Ok(())
    }

    /// A remote user types in the room, or does not any more.
    ///
    /// # Errors
    /// `M_BAD_JSON` for a malformed EDU, [`Error::Forbidden`] by the room's access control list, [`Error::Store`]; users of
    /// other servers or outside the room are ignored.
    pub fn receive_typing(&self, origin: &ServerName, content: Value) -> Result<(), Error> {
        let typing: Typing =
            serde_json::from_value(content).map_err(|_| Error::bad_json("an m.typing has the wrong form"))?;
        if typing.user_id.server_name() != origin || !self.is_joined(&typing.user_id, &typing.room_id)? {
            return Ok(());
        }
        if let Some(room) = self.find_room(&typing.room_id)? {
            self.check_server_acl(&room, origin)?;
        }
        if self.note_typing(&typing.user_id, &typing.room_id, typing.typing.then_some(DEFAULT_TIMEOUT_MS)) {
            self.wake_room(&typing.room_id)?;
        }
        Ok(())
    }

    /// Whoever typed, has sent: typing ends with the message. Nothing happens if they did not type.
    pub fn stop_typing(&self, user: &UserId, room: &RoomId) {
        if self.note_typing(user, room, None)
            && let Err(error) = self.wake_room(room)
        {
            tracing::warn!(room.id = %room, %error, "nobody was woken for the end of typing");
        }
    }

    /// Whether a reader notices.
    fn note_typing(&self, user: &UserId, room: &RoomId, timeout_ms: Option<u64>) -> bool {
        let now_ms = self.now_ms();
        let mut inner = self.presence.inner.lock();
        let known = inner.typing.get(room);
        let was = known.is_some_and(|known| known.users.contains_key(user));
        if timeout_ms.is_none() && !was {
            return false;
        }
        let full = known.map_or(inner.typing.len() >= MAX_ROOMS, |known| known.users.len() >= MAX_TYPING);
        if full && !was {
            return false;
        }
        let serial = inner.next_serial(now_ms);
        let state = inner.typing.entry(room.to_owned()).or_default();
        match timeout_ms {
            Some(timeout_ms) => state.users.insert(user.to_owned(), now_ms.saturating_add(timeout_ms)),
            None => state.users.remove(user),
        };
        let noticed = was != timeout_ms.is_some();
        if noticed {
            state.serial = serial;
            state.changed_ms = now_ms;
        }
        noticed
    }

    fn wake_room(&self, room: &RoomId) -> Result<(), Error> {
        let members = self.joined_members(room)?;
        self.notifier.wake_users(members.iter().map(|member| &**member));
        if self.settings.peeking {
            self.wake_onlookers(room);
        }
        if self.appservices_want_ephemeral() {
            self.appservices_room_edu(room, "m.typing", &json!({ "user_ids": self.typing_in(room).1 }))?;
        }
        Ok(())
    }

    /// Who types in the room, and the serial of the last change.
    #[must_use]
    pub fn typing_in(&self, room: &RoomId) -> (u64, Vec<OwnedUserId>) {
        let inner = self.presence.inner.lock();
        let state = inner.typing.get(room);
        state.map_or_else(Default::default, |state| (state.serial, state.users.keys().cloned().collect()))
    }

    /// The serial of the last change of who types in the room; 0 if nobody did lately.
    #[must_use]
    pub fn typing_serial(&self, room: &RoomId) -> u64 {
        self.presence.inner.lock().typing.get(room).map_or(0, |state| state.serial)
    }

    /// The rooms in which typing changed after `since`, up to `to`.
    #[must_use]
    pub fn typing_rooms_since(&self, since: u64, to: u64) -> BTreeSet<OwnedRoomId> {
        let inner = self.presence.inner.lock();
        let changed = inner.typing.iter().filter(|(_, state)| state.serial > since && state.serial <= to);
        changed.map(|(room, _)| room.clone()).collect()
    }

    /// Typing that timed out is ended, and those in the room hear of it.
    pub(super) fn end_typing(&self) {
        let now_ms = self.now_ms();
        let mut ended = Vec::new();
        {
            let mut inner = self.presence.inner.lock();
            inner.typing.retain(|_, state| {
                !state.users.is_empty() || now_ms.saturating_sub(state.changed_ms) < SILENCE_KEPT_MS
            });
            let over = |state: &RoomTyping| state.users.values().any(|ends_ms| *ends_ms <= now_ms);
            let rooms: Vec<_> =
                inner.typing.iter().filter(|(_, state)| over(state)).map(|(room, _)| room.clone()).collect();
            for room in rooms {
                let serial = inner.next_serial(now_ms);
                if let Some(state) = inner.typing.get_mut(&room) {
                    state.users.retain(|_, ends_ms| *ends_ms > now_ms);
                    state.serial = serial;
                    state.changed_ms = now_ms;
                }
                ended.push(room);
            }
        }
        for room in ended {
            if let Err(error) = self.wake_room(&room) {
                tracing::warn!(room.id = %room, %error, "nobody was woken for the end of typing");
            }
        }
    }
}

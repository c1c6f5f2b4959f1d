//! Setting and reading presence.
//!
//! Spec: <https://spec.matrix.org/v1.19/client-server-api/#presence>.

use std::collections::BTreeSet;

use matron_storage::{Batch, Key, Table};
use ruma::{OwnedUserId, UserId};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Inner;
use crate::{Core, Error, house::to_json};

/// The longest status message, bytes.
const MAX_STATUS_BYTES: usize = 2048;

/// How many users' presence is kept in memory.
const MAX_USERS: usize = 200_000;

/// What a user is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Presence {
    /// At a client.
    Online,
    /// Idle.
    Unavailable,
    /// Away.
    #[default]
    Offline,
}

/// A user's presence at a moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// What the user is.
    pub presence: Presence,
    /// What the user says of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_msg: Option<String>,
    /// When the user last did something, ms since the epoch; 0 if never.
    pub last_active_ms: u64,
    /// Whether that is minutes ago at most.
    #[serde(default)]
    pub currently_active: bool,
}

/// A user's presence as `/sync` shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct PresenceUpdate {
    /// Whose.
    pub user_id: OwnedUserId,
    /// Content of the `m.presence` event.
    pub content: Value,
}

/// What is kept of a user in memory.
#[derive(Clone, Debug, Default)]
pub(super) struct Entry {
    pub status: Status,
    /// Of the last visible change.
    pub serial: u64,
    /// How many syncs wait now.
    pub syncing: u32,
    /// When the last sync began or ended.
    pub last_sync_ms: u64,
    /// When other servers were last told, or, of a remote user, when its server last told us.
    pub last_told_ms: u64,
}

impl Status {
    /// The fields that an `m.presence` event, the endpoint and the EDU share.
    pub(super) fn content(&self, now_ms: u64) -> Map<String, Value> {
        let mut content = Map::new();
        let presence = match self.presence {
            Presence::Online => "online",
            Presence::Unavailable => "unavailable",
            Presence::Offline => "offline",
        };
        content.insert("presence".to_owned(), presence.into());
        if self.last_active_ms > 0 {
            content.insert("last_active_ago".to_owned(), now_ms.saturating_sub(self.last_active_ms).into());
        }
        if let Some(message) = &self.status_msg {
            content.insert("status_msg".to_owned(), message.as_str().into());
        }
        if self.presence == Presence::Online {
            content.insert("currently_active".to_owned(), self.currently_active.into());
        }
        content
    }

    /// Whether a reader would notice the difference.
    fn differs(&self, other: &Self) -> bool {
        self.presence != other.presence
            || self.status_msg != other.status_msg
            || self.currently_active != other.currently_active
    }
}

impl Inner {
    /// The user has this status; whether a reader notices.
    pub(super) fn put(&mut self, user: &UserId, status: Status, now_ms: u64) -> bool {
        self.make_room();
        let known = self.users.get(user);
        let noticed = known.is_none_or(|known| known.status.differs(&status));
        let old_serial = known.map_or(0, |known| known.serial);
        let serial = if noticed { self.next_serial(now_ms) } else { old_serial };
        if noticed {
            self.by_serial.remove(&old_serial);
            self.by_serial.insert(serial, user.to_owned());
        }
        let entry = self.users.entry(user.to_owned()).or_default();
        entry.status = status;
        entry.serial = serial;
        noticed
    }

    /// Who changed longest ago and is away makes way.
    fn make_room(&mut self) {
        if self.users.len() < MAX_USERS {
            return;
        }
        let away = self.by_serial.iter().find(|(_, user)| {
            self.users.get(*user).is_none_or(|entry| entry.status.presence == Presence::Offline && entry.syncing == 0)
        });
        if let Some((serial, user)) = away.map(|(serial, user)| (*serial, user.clone())) {
            self.by_serial.remove(&serial);
            self.users.remove(&user);
        }
    }
}

impl Core {
    /// The user's presence is this, and those who share a room hear of it.
    ///
    /// # Errors
    /// `M_TOO_LARGE` for a long message, [`Error::Store`].
    pub async fn set_presence(
        &self,
        user: &UserId,
        presence: Presence,
        status_msg: Option<String>,
    ) -> Result<(), Error> {
        if status_msg.as_ref().is_some_and(|message| message.len() > MAX_STATUS_BYTES) {
            return Err(Error::TooLarge(format!("a status message has at most {MAX_STATUS_BYTES} bytes").into()));
        }
        if !self.settings.presence {
            return Ok(());
        }
        let now_ms = self.now_ms();
        let status_msg = status_msg.filter(|message| !message.is_empty());
        let currently_active = presence == Presence::Online;
        let status = Status { presence, status_msg, last_active_ms: now_ms, currently_active };
        let noticed = {
            let mut inner = self.presence.inner.lock();
            let noticed = inner.put(user, status, now_ms);
            if let Some(entry) = inner.users.get_mut(user) {
                entry.last_sync_ms = now_ms;
            }
            noticed
        };
        if noticed { self.tell_presence(&[user.to_owned()]).await } else { Ok(()) }
    }

    /// The users' presence, kept and told to everyone who shares a room.
    pub(super) async fn tell_presence(&self, users: &[OwnedUserId]) -> Result<(), Error> {
        let now_ms = self.now_ms();
        let mut batch = Batch::new();
        let mut wake = BTreeSet::new();
        for user in users {
            let status = {
                let mut inner = self.presence.inner.lock();
                let Some(entry) = inner.users.get_mut(user) else { continue };
                entry.last_told_ms = now_ms;
                entry.status.clone()
            };
            wake.insert(user.clone());
            wake.extend(self.users_sharing_room(user)?);
            if self.settings.peeking {
                self.joined_rooms(user)?.iter().for_each(|room| self.notifier.wake_room(room));
            }
            if self.appservices_want_ephemeral() {
                self.appservices_presence(user, &Value::Object(status.content(now_ms)))?;
            }
            if self.is_local_user(user) {
                batch.put(Table::UserPresence, Key::new().text(user), to_json(&status)?);
                self.tell_presence_to_servers(user, &status, now_ms)?;
            }
        }
        if !batch.is_empty() {
            self.commit(batch).await?;
        }
        self.notifier.wake_users(wake.iter().map(|user| &**user));
        Ok(())
    }

    /// A user's presence as `observer` may see it: their own, and that of users with whom they share a room.
    ///
    /// # Errors
    /// `M_FORBIDDEN`, [`Error::Store`].
    pub fn presence_of(&self, observer: &UserId, user: &UserId) -> Result<Value, Error> {
        if observer != user && !self.share_room(observer, user)? {
            return Err(Error::forbidden("you share no room with this user"));
        }
        let status = self.known_presence(user)?.unwrap_or_default();
        Ok(Value::Object(status.content(self.now_ms())))
    }

    /// From memory, or what was kept of a local user.
    fn known_presence(&self, user: &UserId) -> Result<Option<Status>, Error> {
        if let Some(entry) = self.presence.inner.lock().users.get(user) {
            return Ok(Some(entry.status.clone()));
        }
        let kept: Option<Status> = self.load(Table::UserPresence, &Key::new().text(user))?;
        Ok(kept.map(|status| Status { presence: Presence::Offline, currently_active: false, ..status }))
    }

    pub(super) fn kept_status_msg(&self, user: &UserId) -> Result<Option<String>, Error> {
        Ok(self.known_presence(user)?.and_then(|status| status.status_msg))
    }

    /// The serial of the last change of anybody's presence; 0 before the first.
    #[must_use]
    pub fn presence_serial(&self) -> u64 {
        self.presence.inner.lock().by_serial.last_key_value().map_or(0, |(serial, _)| *serial)
    }

    /// Changes of presence after `since`, up to `to`, of the user and of those who share a room.
    ///
    /// `since` 0 gives the presence of everyone who is not offline.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn presence_since(&self, user: &UserId, since: u64, to: u64) -> Result<Vec<PresenceUpdate>, Error> {
        if !self.settings.presence || since >= to {
            return Ok(Vec::new());
        }
        let changed = self.presence_changes(since, to, |subject, status| {
            since > 0 || subject == user || status.presence != Presence::Offline
        });
        // Who begins to sync learns of themselves, whatever they are.
        let own = since == 0 && !changed.iter().any(|(subject, _)| subject == user);
        let own = if own { self.presence_of_users([user]) } else { Vec::new() };
        if changed.is_empty() {
            return Ok(own);
        }
        let sharing = self.users_sharing_room(user)?;
        let now_ms = self.now_ms();
        let visible = changed.into_iter().filter(|(subject, _)| subject == user || sharing.contains(subject));
        let told =
            visible.map(|(user_id, status)| PresenceUpdate { user_id, content: Value::Object(status.content(now_ms)) });
        Ok(told.chain(own).collect())
    }

    /// Changes of presence after `since`, up to `to`, of these users; the caller checks that they may be told.
    pub(crate) fn presence_among(&self, users: &imbl::OrdSet<OwnedUserId>, since: u64, to: u64) -> Vec<PresenceUpdate> {
        if !self.settings.presence || since >= to {
            return Vec::new();
        }
        let now_ms = self.now_ms();
        let changed = self.presence_changes(since, to, |subject, _| users.contains(subject));
        changed
            .into_iter()
            .map(|(user_id, status)| PresenceUpdate { user_id, content: Value::Object(status.content(now_ms)) })
            .collect()
    }

    fn presence_changes(
        &self,
        since: u64,
        to: u64,
        keep: impl Fn(&OwnedUserId, &Status) -> bool,
    ) -> Vec<(OwnedUserId, Status)> {
        let inner = self.presence.inner.lock();
        let range = inner.by_serial.range(since.saturating_add(1)..=to);
        range
            .filter_map(|(_, user)| Some((user, &inner.users.get(user)?.status)))
            .filter(|(user, status)| keep(user, status))
            .map(|(user, status)| (user.clone(), status.clone()))
            .collect()
    }

    /// The presence of a local user of whom nothing is known: offline since the account was made.
    fn never_seen(&self, user: &UserId) -> Status {
        let account = self.account(user).ok().flatten();
        Status { last_active_ms: account.map_or(0, |account| account.created_ms), ..Status::default() }
    }

    /// The presence of these users, for who newly shares a room with them; the caller checks that they do. Remote users of
    /// whom nothing was heard are left out; our own are offline then.
    #[must_use]
    pub fn presence_of_users<'a>(&self, users: impl IntoIterator<Item = &'a UserId>) -> Vec<PresenceUpdate> {
        if !self.settings.presence {
            return Vec::new();
        }
        let now_ms = self.now_ms();
        let known = users.into_iter().filter_map(|user| {
            let status = match self.known_presence(user) {
                Ok(Some(status)) => status,
                Ok(None) if self.is_local_user(user) => self.never_seen(user),
                Ok(None) => return None,
                Err(error) => {
                    tracing::warn!(%error, "presence could not be read");
                    return None;
                }
            };
            Some(PresenceUpdate { user_id: user.to_owned(), content: Value::Object(status.content(now_ms)) })
        });
        known.collect()
    }
}

//! What syncing, idling and vanishing do to presence.

use ruma::{OwnedUserId, UserId};

use super::status::{Entry, Presence, Status};
use crate::{Core, Error};

/// After this without a sync a user is offline, ms.
const GONE_AFTER_MS: u64 = 30_000;

/// After this without activity a user is unavailable, ms.
const IDLE_AFTER_MS: u64 = 5 * 60_000;

/// After this without activity a user is not currently active, ms.
const ACTIVE_FOR_MS: u64 = 60_000;

/// After this other servers are told again that a user is there, ms.
const TELL_AGAIN_AFTER_MS: u64 = 25 * 60_000;

/// After this without word from their server remote users are offline, ms.
const REMOTE_GONE_AFTER_MS: u64 = 30 * 60_000;

/// A sync under way; dropping it begins the time after which its user is gone.
#[derive(Debug)]
pub struct SyncPresence<'a> {
    core: &'a Core,
    user: OwnedUserId,
}

impl Drop for SyncPresence<'_> {
    fn drop(&mut self) {
        let now_ms = self.core.now_ms();
        if let Some(entry) = self.core.presence.inner.lock().users.get_mut(&self.user) {
            entry.syncing = entry.syncing.saturating_sub(1);
            entry.last_sync_ms = now_ms;
        }
    }
}

impl Core {
    /// The user has the presence that `set_presence` of `/sync` asks for while the guard lives; `None` for `offline`.
    /// That others cannot be told, as on a full disk, does not keep anyone from reading.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn begin_sync_presence(
        &self,
        user: &UserId,
        set_presence: Option<Presence>,
    ) -> Result<Option<SyncPresence<'_>>, Error> {
        let wanted = set_presence.unwrap_or(Presence::Online);
        if wanted == Presence::Offline || !self.settings.presence {
            return Ok(None);
        }
        let now_ms = self.now_ms();
        let status_msg = self.kept_status_msg(user)?;
        let noticed = {
            let mut inner = self.presence.inner.lock();
            let known = inner.users.get(user).map(|entry| entry.status.clone());
            let mut status = known.unwrap_or(Status { status_msg, ..Status::default() });
            status.presence = wanted;
            if wanted == Presence::Online {
                status.last_active_ms = now_ms;
            }
            status.currently_active = wanted == Presence::Online;
            let noticed = inner.put(user, status, now_ms);
            if let Some(entry) = inner.users.get_mut(user) {
                entry.syncing = entry.syncing.saturating_add(1);
                entry.last_sync_ms = now_ms;
            }
            noticed
        };
        let guard = SyncPresence { core: self, user: user.to_owned() };
        if noticed && let Err(error) = self.tell_presence(std::slice::from_ref(&guard.user)).await {
            tracing::warn!(%error, "who came online was not told");
        }
        Ok(Some(guard))
    }

    /// The user did something: sent a message, read one.
    pub fn user_is_active(&self, user: &UserId) {
        let now_ms = self.now_ms();
        if let Some(entry) = self.presence.inner.lock().users.get_mut(user) {
            entry.status.last_active_ms = now_ms;
        }
    }

    /// Who idled or vanished is shown as such, and who stays is told again to other servers.
    pub(super) async fn age_presence(&self) -> Result<(), Error> {
        let now_ms = self.now_ms();
        let mut told = Vec::new();
        {
            let mut inner = self.presence.inner.lock();
            let mut aged = Vec::new();
            for (user, entry) in &inner.users {
                let local = self.is_local_user(user);
                if let Some(status) = aged_status(entry, local, now_ms) {
                    aged.push((user.clone(), status));
                } else if local
                    && entry.status.presence != Presence::Offline
                    && now_ms.saturating_sub(entry.last_told_ms) > TELL_AGAIN_AFTER_MS
                {
                    told.push(user.clone());
                }
            }
            for (user, status) in aged {
                inner.put(&user, status, now_ms);
                told.push(user);
            }
        }
        if told.is_empty() { Ok(()) } else { self.tell_presence(&told).await }
    }
}

/// What the time that passed makes of a status, if anything.
fn aged_status(entry: &Entry, local: bool, now_ms: u64) -> Option<Status> {
    let status = &entry.status;
    if status.presence == Presence::Offline {
        return None;
    }
    let gone = if local {
        entry.syncing == 0 && now_ms.saturating_sub(entry.last_sync_ms) > GONE_AFTER_MS
    } else {
        now_ms.saturating_sub(entry.last_told_ms) > REMOTE_GONE_AFTER_MS
    };
    if gone {
        return Some(Status { presence: Presence::Offline, currently_active: false, ..status.clone() });
    }
    if !local {
        return None;
    }
    let idle_ms = now_ms.saturating_sub(status.last_active_ms);
    if status.presence == Presence::Online && idle_ms > IDLE_AFTER_MS {
        return Some(Status { presence: Presence::Unavailable, currently_active: false, ..status.clone() });
    }
    (status.currently_active && idle_ms > ACTIVE_FOR_MS).then(|| Status { currently_active: false, ..status.clone() })
}

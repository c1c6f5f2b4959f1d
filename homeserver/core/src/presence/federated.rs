//! `m.presence`: telling other servers, and hearing from them.
//!
//! Spec: <https://spec.matrix.org/v1.19/server-server-api/#presence>.

use std::collections::BTreeSet;

use ruma::{OwnedUserId, RoomId, ServerName, UserId};
use serde::Deserialize;
use serde_json::Value;

use super::{
    Inner,
    status::{Presence, Status},
};
use crate::{Core, Error, outbox::Subject};

/// How many users one EDU may name.
const MAX_PUSHED: usize = 1_000;

/// How many users' presence may wait for a join to be done here.
const MAX_EARLY: usize = 1_000;

/// How long it waits, ms.
const EARLY_MS: u64 = 60_000;

/// The longest status message that is taken from another server, bytes.
const MAX_STATUS_BYTES: usize = 2048;

#[derive(Deserialize)]
struct Push {
    push: Vec<Pushed>,
}

#[derive(Deserialize)]
struct Pushed {
    user_id: OwnedUserId,
    presence: Presence,
    #[serde(default)]
    status_msg: Option<String>,
    #[serde(default)]
    last_active_ago: Option<u64>,
    #[serde(default)]
    currently_active: bool,
}

impl Core {
    /// Every server that shares a room with the user is told, unless it is down.
    pub(super) fn tell_presence_to_servers(&self, user: &UserId, status: &Status, now_ms: u64) -> Result<(), Error> {
        let word = pushed(user, status, now_ms);
        for server in self.servers_sharing_room(user)? {
            self.tell_in_passing(&server, Subject::Presence(user.to_owned()), word.clone());
        }
        Ok(())
    }

    /// The presence that another server tells of its users is known here, for users who share a room with ours.
    ///
    /// # Errors
    /// `M_BAD_JSON` for a malformed EDU, [`Error::Store`]; users of other servers are skipped.
    pub async fn receive_presence(&self, origin: &ServerName, content: Value) -> Result<(), Error> {
        if !self.settings.presence {
            return Ok(());
        }
        let Push { push } =
            serde_json::from_value(content).map_err(|_| Error::bad_json("an m.presence has the wrong form"))?;
        let now_ms = self.now_ms();
        let mut noticed = Vec::new();
        for pushed in push.into_iter().take(MAX_PUSHED) {
            let user = pushed.user_id;
            if user.server_name() != origin {
                continue;
            }
            let status = Status {
                presence: pushed.presence,
                status_msg: pushed.status_msg.filter(|message| message.len() <= MAX_STATUS_BYTES),
                last_active_ms: pushed.last_active_ago.map_or(0, |ago| now_ms.saturating_sub(ago)),
                currently_active: pushed.currently_active,
            };
            let tracked = self.is_tracked(&user)?;
            let mut inner = self.presence.inner.lock();
            if !tracked {
                inner.keep_early(user, status, now_ms);
                continue;
            }
            if inner.put(&user, status, now_ms) {
                noticed.push(user.clone());
            }
            if let Some(entry) = inner.users.get_mut(&user) {
                entry.last_told_ms = now_ms;
            }
        }
        if noticed.is_empty() { Ok(()) } else { self.tell_presence(&noticed).await }
    }

    /// What follows for presence when users came into a room where these are joined now: other servers hear of our users, and
    /// a server that is new in the room hears of ours who are there.
    pub(crate) async fn presence_after_joins(
        &self,
        room: &RoomId,
        users: &[OwnedUserId],
        joined: &imbl::OrdSet<OwnedUserId>,
    ) -> Result<(), Error> {
        if !self.settings.presence {
            return Ok(());
        }
        let came = || users.iter().filter(|user| joined.contains(*user));
        if came().any(|user| self.is_local_user(user)) {
            self.take_early_presence(room).await?;
            let ours = came().map(|user| &**user).filter(|user| self.is_local_user(user));
            let present: Vec<OwnedUserId> = self.present(ours).map(|(user, _)| user.to_owned()).collect();
            if !present.is_empty() {
                self.tell_presence(&present).await?;
            }
        }
        let mut new_servers: BTreeSet<&ServerName> =
            came().filter(|user| !self.is_local_user(user)).map(|user| user.server_name()).collect();
        if new_servers.is_empty() {
            return Ok(());
        }
        let came: BTreeSet<&UserId> = came().map(|user| &**user).collect();
        for member in joined.iter().filter(|member| !came.contains(&***member)) {
            new_servers.remove(member.server_name());
        }
        let ours = joined.iter().map(|member| &**member).filter(|member| self.is_local_user(member));
        let now_ms = self.now_ms();
        for (user, status) in self.present(ours).take(MAX_PUSHED) {
            for server in &new_servers {
                self.tell_in_passing(server, Subject::Presence(user.to_owned()), pushed(user, &status, now_ms));
            }
        }
        Ok(())
    }

    /// What was heard of members of the room before the join was done here is known now.
    async fn take_early_presence(&self, room: &RoomId) -> Result<(), Error> {
        if self.presence.inner.lock().early.is_empty() {
            return Ok(());
        }
        let members = self.joined_members(room)?;
        let now_ms = self.now_ms();
        let mut noticed = Vec::new();
        {
            let mut inner = self.presence.inner.lock();
            for member in members {
                let Some((until_ms, status)) = inner.early.remove(&member) else { continue };
                if until_ms > now_ms && inner.put(&member, status, now_ms) {
                    if let Some(entry) = inner.users.get_mut(&member) {
                        entry.last_told_ms = now_ms;
                    }
                    noticed.push(member);
                }
            }
        }
        if noticed.is_empty() { Ok(()) } else { self.tell_presence(&noticed).await }
    }

    /// Those of the users who are not offline.
    fn present<'a>(&self, users: impl Iterator<Item = &'a UserId>) -> impl Iterator<Item = (&'a UserId, Status)> {
        users.filter_map(|user| {
            let inner = self.presence.inner.lock();
            let status = &inner.users.get(user)?.status;
            (status.presence != Presence::Offline).then(|| (user, status.clone()))
        })
    }
}

impl Inner {
    /// Keeps the status for a short while, if there is room.
    fn keep_early(&mut self, user: OwnedUserId, status: Status, now_ms: u64) {
        if self.early.len() >= MAX_EARLY {
            self.early.retain(|_, (until_ms, _)| *until_ms > now_ms);
        }
        if self.early.len() < MAX_EARLY {
            self.early.insert(user, (now_ms.saturating_add(EARLY_MS), status));
        }
    }
}

/// One entry of `push`.
fn pushed(user: &UserId, status: &Status, now_ms: u64) -> Value {
    let mut pushed = status.content(now_ms);
    pushed.insert("user_id".to_owned(), user.as_str().into());
    pushed.entry("last_active_ago").or_insert_with(|| 0.into());
    Value::Object(pushed)
}

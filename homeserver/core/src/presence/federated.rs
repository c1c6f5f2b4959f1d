//! `m.presence`: telling other servers, and hearing from them.
//!
//! Spec: <https://spec.matrix.org/v1.19/server-server-api/#presence>.

use matron_storage::Batch;
use ruma::{OwnedServerName, OwnedUserId, ServerName, UserId};
use serde::Deserialize;
use serde_json::{Value, json};

use super::status::{Presence, Status};
use crate::{Core, Error};

/// How many users one EDU may name.
const MAX_PUSHED: usize = 1_000;

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
    /// The batch tells every server that shares a room with the user; which those are.
    pub(super) fn write_presence_edus(
        &self,
        batch: &mut Batch,
        user: &UserId,
        status: &Status,
        now_ms: u64,
    ) -> Result<Vec<OwnedServerName>, Error> {
        let mut pushed = status.content(now_ms);
        pushed.insert("user_id".to_owned(), user.as_str().into());
        pushed.entry("last_active_ago").or_insert_with(|| 0.into());
        let content = json!({ "push": [pushed] });
        let mut servers = self.servers_sharing_room(user)?;
        servers.retain(|server| !self.is_local(server));
        for server in &servers {
            self.queue_edu(batch, server, "m.presence", &content)?;
        }
        Ok(servers.into_iter().collect())
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
            if user.server_name() != origin || !self.is_tracked(&user)? {
                continue;
            }
            let status = Status {
                presence: pushed.presence,
                status_msg: pushed.status_msg.filter(|message| message.len() <= MAX_STATUS_BYTES),
                last_active_ms: pushed.last_active_ago.map_or(0, |ago| now_ms.saturating_sub(ago)),
                currently_active: pushed.currently_active,
            };
            let mut inner = self.presence.inner.lock();
            if inner.put(&user, status, now_ms) {
                noticed.push(user.clone());
            }
            if let Some(entry) = inner.users.get_mut(&user) {
                entry.last_told_ms = now_ms;
            }
        }
        if noticed.is_empty() { Ok(()) } else { self.tell_presence(&noticed).await }
    }

    /// Servers that a local user newly shares a room with hear of the user's presence.
    pub(crate) async fn presence_after_membership(&self, user: &UserId) -> Result<(), Error> {
        let present = self.presence.inner.lock().users.get(user).is_some_and(|e| e.status.presence != Presence::Offline);
        if present && self.is_local_user(user) { self.tell_presence(&[user.to_owned()]).await } else { Ok(()) }
    }
}

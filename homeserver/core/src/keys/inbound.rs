//! What other servers tell about their users' devices: `m.device_list_update`, `m.signing_key_update`.
//!
//! Spec: <https://spec.matrix.org/v1.19/server-server-api/#device-management>.

use matron_storage::{Batch, CommitError};
use ruma::{OwnedUserId, ServerName};
use serde::Deserialize;
use serde_json::Value;

use super::{
    query::names_owner,
    remote::{MAX_REMOTE_DEVICES, RemoteDevice, RemoteList},
    upload::MAX_TRIES,
};
use crate::{Core, Error};

#[derive(Clone, Debug, Deserialize)]
struct DeviceListUpdate {
    user_id: OwnedUserId,
    device_id: String,
    stream_id: u64,
    #[serde(default)]
    prev_id: Vec<u64>,
    #[serde(default)]
    deleted: bool,
    #[serde(default)]
    device_display_name: Option<String>,
    #[serde(default)]
    keys: Option<Value>,
}

#[derive(Clone, Debug, Deserialize)]
struct SigningKeyUpdate {
    user_id: OwnedUserId,
    #[serde(default)]
    master_key: Option<Value>,
    #[serde(default)]
    self_signing_key: Option<Value>,
}

/// What an update makes of the list that is cached.
enum Outcome {
    /// Nothing new.
    Known,
    /// The list with the update in it.
    Applied(RemoteList),
    /// An update before this one was missed.
    Gap,
}

impl Core {
    /// The cached list of a remote user has the update, or is marked and fetched again when one was missed.
    ///
    /// # Errors
    /// `M_BAD_JSON` for a malformed update, `M_FORBIDDEN` for a user of another server, [`Error::Store`].
    pub async fn receive_device_list_update(&self, origin: &ServerName, content: Value) -> Result<(), Error> {
        let update: DeviceListUpdate = serde_json::from_value(content)
            .map_err(|_| Error::bad_json("an m.device_list_update has the wrong form"))?;
        check_origin(origin, &update.user_id)?;
        let user = update.user_id.clone();
        if !self.is_tracked(&user)? {
            return self.forget_remote_list(&user).await;
        }
        for _ in 0..MAX_TRIES {
            let read = self.read_remote_list(&user)?;
            let outcome = match &read.list {
                Some(list) if !list.stale => apply(list, &update),
                _ => Outcome::Gap,
            };
            let mut batch = Batch::new();
            let resync = match outcome {
                Outcome::Known => return Ok(()),
                Outcome::Applied(list) => {
                    self.write_remote_list(&mut batch, &user, read, Some(&list))?;
                    false
                }
                Outcome::Gap => {
                    let stale = RemoteList { stale: true, ..read.list.clone().unwrap_or_default() };
                    self.write_remote_list(&mut batch, &user, read, Some(&stale))?;
                    true
                }
            };
            match self.remote_keys_changed(batch, &user).await {
                Ok(()) => {
                    if resync {
                        self.keys.want_resync(user);
                    }
                    return Ok(());
                }
                Err(CommitError::Conflict(_)) => tokio::task::yield_now().await,
                Err(CommitError::Store(error)) => return Err(error.into()),
            }
        }
        Err(Error::LimitExceeded { retry_after_ms: 1_000 })
    }

    /// The cached identity of a remote user is the new one.
    ///
    /// # Errors
    /// As [`Core::receive_device_list_update`].
    pub async fn receive_signing_key_update(&self, origin: &ServerName, content: Value) -> Result<(), Error> {
        let update: SigningKeyUpdate = serde_json::from_value(content)
            .map_err(|_| Error::bad_json("an m.signing_key_update has the wrong form"))?;
        check_origin(origin, &update.user_id)?;
        let user = update.user_id;
        if !self.is_tracked(&user)? {
            return self.forget_remote_list(&user).await;
        }
        for _ in 0..MAX_TRIES {
            let read = self.read_remote_list(&user)?;
            let known = read.list.clone();
            let mut list = known.clone().unwrap_or_else(|| RemoteList { stale: true, ..RemoteList::default() });
            for (slot, key) in
                [(&mut list.master_key, &update.master_key), (&mut list.self_signing_key, &update.self_signing_key)]
            {
                if let Some(key) = key.as_ref().filter(|key| names_owner(key, &user, None)) {
                    *slot = Some(key.clone());
                }
            }
            if known.as_ref() == Some(&list) {
                return Ok(());
            }
            let mut batch = Batch::new();
            self.write_remote_list(&mut batch, &user, read, Some(&list))?;
            match self.remote_keys_changed(batch, &user).await {
                Ok(()) => return Ok(()),
                Err(CommitError::Conflict(_)) => tokio::task::yield_now().await,
                Err(CommitError::Store(error)) => return Err(error.into()),
            }
        }
        Err(Error::LimitExceeded { retry_after_ms: 1_000 })
    }

    /// Nobody here shares a room with the user, so their server owes us no updates and a cache would lie.
    pub(super) async fn forget_remote_list(&self, user: &ruma::UserId) -> Result<(), Error> {
        let read = self.read_remote_list(user)?;
        if read.bytes.is_none() {
            return Ok(());
        }
        let mut batch = Batch::new();
        self.write_remote_list(&mut batch, user, read, None)?;
        match self.store.submit(batch).await {
            Ok(_) | Err(CommitError::Conflict(_)) => Ok(()),
            Err(CommitError::Store(error)) => Err(error.into()),
        }
    }
}

/// A server speaks for its own users.
pub(super) fn check_origin(origin: &ServerName, user: &ruma::UserId) -> Result<(), Error> {
    if user.server_name() == origin {
        return Ok(());
    }
    Err(Error::forbidden("a server may speak for its own users only"))
}

fn apply(list: &RemoteList, update: &DeviceListUpdate) -> Outcome {
    let Some(known) = list.stream_id else { return Outcome::Gap };
    if update.stream_id <= known {
        return Outcome::Known;
    }
    // The list holds every update up to `known`; a later one that it was not told of is a gap.
    if update.prev_id.is_empty() || update.prev_id.iter().any(|previous| *previous > known) {
        return Outcome::Gap;
    }
    let mut list = list.clone();
    list.stream_id = Some(update.stream_id);
    if update.deleted {
        list.devices.remove(&update.device_id);
    } else {
        if list.devices.len() >= MAX_REMOTE_DEVICES && !list.devices.contains_key(&update.device_id) {
            return Outcome::Gap;
        }
        let keys = update.keys.clone().filter(|keys| names_owner(keys, &update.user_id, Some(&update.device_id)));
        let device = RemoteDevice { keys, display_name: update.device_display_name.clone() };
        list.devices.insert(update.device_id.clone(), device);
    }
    Outcome::Applied(list)
}

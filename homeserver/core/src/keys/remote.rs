//! The cache of remote users' devices: filled by `GET /user/devices`, kept fresh by EDUs.

use std::{collections::BTreeMap, time::Duration};

use futures_util::{StreamExt, stream};
use matron_storage::{Batch, CommitError, Key, Table};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use ruma::{OwnedUserId, RoomId, UserId};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::query::names_owner;
use crate::{
    Core, Error,
    house::{from_json, to_json},
    ports::{FederationRequest, PeerError, http_method::Method},
};

/// The largest device list, bytes.
const MAX_LIST_BYTES: usize = 4 * 1024 * 1024;

/// How many devices of one remote user are kept.
pub(super) const MAX_REMOTE_DEVICES: usize = 2_000;

/// How long a resync in the background may take.
const RESYNC_TIMEOUT: Duration = Duration::from_secs(30);

/// How many lists are fetched at the same time in the background.
const RESYNCS_AT_ONCE: usize = 8;

/// A remote user's devices as last heard.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RemoteList {
    /// Of the last update that is part of the list.
    pub stream_id: Option<u64>,
    /// By device id.
    pub devices: BTreeMap<String, RemoteDevice>,
    /// The user's master key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub master_key: Option<Value>,
    /// The user's self-signing key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub self_signing_key: Option<Value>,
    /// An update was missed; the list must be fetched before it is used.
    #[serde(default)]
    pub stale: bool,
}

/// One device of a remote user.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RemoteDevice {
    /// Its identity keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keys: Option<Value>,
    /// Its public name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
}

#[derive(Deserialize)]
struct PeerList {
    user_id: OwnedUserId,
    #[serde(default)]
    stream_id: Option<u64>,
    devices: Vec<PeerDevice>,
    #[serde(default)]
    master_key: Option<Value>,
    #[serde(default)]
    self_signing_key: Option<Value>,
}

#[derive(Deserialize)]
struct PeerDevice {
    device_id: String,
    #[serde(default)]
    keys: Option<Value>,
    #[serde(default)]
    device_display_name: Option<String>,
}

/// A row as it was read.
#[derive(Debug)]
pub(super) struct ReadList {
    pub bytes: Option<Vec<u8>>,
    pub list: Option<RemoteList>,
}

fn row_key(user: &UserId) -> Key {
    Key::new().text(user)
}

impl Core {
    /// The cached list, if it is whole and the user's server keeps telling us of changes.
    pub(super) fn cached_devices(&self, user: &UserId) -> Result<Option<RemoteList>, Error> {
        let Some(list) = self.read_remote_list(user)?.list.filter(|list| !list.stale) else { return Ok(None) };
        Ok(self.is_tracked(user)?.then_some(list))
    }

    pub(super) fn read_remote_list(&self, user: &UserId) -> Result<ReadList, Error> {
        let bytes = self.store.get(Table::DeviceListRemote, row_key(user).as_bytes())?;
        let list = bytes.as_deref().map(|bytes| from_json(Table::DeviceListRemote, bytes)).transpose()?;
        Ok(ReadList { bytes, list })
    }

    /// The batch replaces the list, and is refused if it changed since it was read.
    pub(super) fn write_remote_list(
        &self,
        batch: &mut Batch,
        user: &UserId,
        read: ReadList,
        list: Option<&RemoteList>,
    ) -> Result<(), Error> {
        let key = row_key(user);
        match read.bytes {
            Some(bytes) => batch.expect_equals(Table::DeviceListRemote, key.clone(), bytes),
            None => batch.expect_absent(Table::DeviceListRemote, key.clone()),
        };
        match list {
            Some(list) => batch.put(Table::DeviceListRemote, key, to_json(list)?),
            None => batch.delete(Table::DeviceListRemote, key),
        };
        Ok(())
    }

    /// The list as the user's server tells it now; it is cached, and local clients hear if it differs.
    pub(super) async fn fetch_devices(
        &self,
        user: &UserId,
        timeout: Duration,
    ) -> Result<Result<RemoteList, PeerError>, Error> {
        for _ in 0..4 {
            let read = self.read_remote_list(user)?;
            let fetched = match self.request_devices(user, timeout).await {
                Ok(fetched) => fetched,
                Err(error) => return Ok(Err(error)),
            };
            let known = read.list.as_ref().map(|list| RemoteList { stale: false, ..list.clone() });
            // Whoever asked before there was a cache may hold an older answer.
            let is_news = known.is_none_or(|known| known != fetched);
            let mut batch = Batch::new();
            self.write_remote_list(&mut batch, user, read, Some(&fetched))?;
            let written = if is_news {
                self.remote_keys_changed(batch, user).await
            } else {
                self.store.submit(batch).await.map(|_| ())
            };
            match written {
                Ok(()) => return Ok(Ok(fetched)),
                // An update came meanwhile; what was fetched may be older.
                Err(CommitError::Conflict(_)) => {}
                Err(CommitError::Store(error)) => return Err(error.into()),
            }
        }
        Ok(Err(PeerError::Malformed("the device list changes faster than it can be fetched".to_owned())))
    }

    async fn request_devices(&self, user: &UserId, timeout: Duration) -> Result<RemoteList, PeerError> {
        let path = utf8_percent_encode(user.as_str(), NON_ALPHANUMERIC);
        let request = FederationRequest {
            destination: user.server_name().to_owned(),
            method: Method::Get,
            path_and_query: format!("/_matrix/federation/v1/user/devices/{path}"),
            body: None,
            signed: true,
            timeout,
            max_bytes: MAX_LIST_BYTES,
        };
        let response = self.ask_peer(request).await?;
        let malformed = || PeerError::Malformed("the device list has the wrong form".to_owned());
        let list: PeerList = serde_json::from_slice(&response.body).map_err(|_| malformed())?;
        if list.user_id != user || list.devices.len() > MAX_REMOTE_DEVICES {
            return Err(malformed());
        }
        let devices = list.devices.into_iter().map(|device| {
            let keys = device.keys.filter(|keys| names_owner(keys, user, Some(&device.device_id)));
            (device.device_id, RemoteDevice { keys, display_name: device.device_display_name })
        });
        Ok(RemoteList {
            stream_id: list.stream_id,
            devices: devices.collect(),
            master_key: list.master_key.filter(|key| names_owner(key, user, None)),
            self_signing_key: list.self_signing_key.filter(|key| names_owner(key, user, None)),
            stale: false,
        })
    }

    /// Cached lists are dropped of whom nobody here shares a room with any more: their servers owe us no updates, so the
    /// cache would lie when they come back.
    pub(super) async fn forget_lists_after_leaving(&self, room: &RoomId, user: &UserId) -> Result<(), Error> {
        if !self.is_local_user(user) {
            return if self.is_tracked(user)? { Ok(()) } else { self.forget_remote_list(user).await };
        }
        let members = self.joined_members(room)?;
        if members.iter().any(|member| self.is_local_user(member)) {
            return Ok(());
        }
        for member in members {
            let key = row_key(&member);
            if self.store.get(Table::DeviceListRemote, key.as_bytes())?.is_some() && !self.is_tracked(&member)? {
                self.forget_remote_list(&member).await?;
            }
        }
        Ok(())
    }

    /// Every list that waits is fetched once. One that fails stays marked in the store and is fetched when it is asked for.
    pub(super) async fn resync_waiting(&self) {
        loop {
            let users = self.keys.take_resync(RESYNCS_AT_ONCE * 8);
            if users.is_empty() {
                return;
            }
            stream::iter(users)
                .for_each_concurrent(RESYNCS_AT_ONCE, |user| async move {
                    match self.fetch_devices(&user, RESYNC_TIMEOUT).await {
                        Ok(Ok(_)) => {}
                        Ok(Err(error)) => {
                            tracing::info!(peer.name = %user.server_name(), %error, "a device list could not be fetched");
                        }
                        Err(error) => tracing::warn!(%error, "a fetched device list could not be stored"),
                    }
                })
                .await;
        }
    }
}

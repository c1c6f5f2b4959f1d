//! `POST /keys/query`: ours from the store, others' from the cache or their server.
//!
//! Spec: <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysquery>.

use std::{collections::BTreeMap, time::Duration};

use futures_util::{StreamExt, stream};
use ruma::{OwnedDeviceId, OwnedServerName, OwnedUserId, UserId};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value, json};

use super::{
    local::{Usage, set_display_name},
    remote::RemoteList,
    signed_json::only_key,
};
use crate::{
    Core, Error,
    ports::{FederationRequest, PeerError, http_method::Method},
};

/// How many other servers are asked at the same time for one request.
pub(super) const MAX_SERVERS_AT_ONCE: usize = 16;

/// How many users of one server are fetched one by one, into the cache; the others come in one query, uncached.
const MAX_FETCHES_PER_SERVER: usize = 16;

/// How many users one request may name.
const MAX_USERS: usize = 10_000;

/// The largest answer of another server, bytes.
const MAX_ANSWER_BYTES: usize = 16 * 1024 * 1024;

/// How long other servers may take when the client does not say, ms.
const DEFAULT_TIMEOUT_MS: u64 = 10_000;

/// The longest that a client may wait for other servers, ms.
const MAX_TIMEOUT_MS: u64 = 30_000;

/// Whose keys a client wants.
#[derive(Clone, Debug, Deserialize)]
pub struct KeysQuery {
    /// How long to wait for other servers, ms.
    #[serde(default)]
    pub timeout: Option<u64>,
    /// User to devices; no devices mean all.
    pub device_keys: BTreeMap<OwnedUserId, WantedDevices>,
}

/// A list of device ids. Old clients say `{}` or `null` for "all".
#[derive(Clone, Debug, Default)]
pub struct WantedDevices(pub Vec<OwnedDeviceId>);

impl<'de> Deserialize<'de> for WantedDevices {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::Null => Ok(Self::default()),
            Value::Object(object) if object.is_empty() => Ok(Self::default()),
            value => serde_json::from_value(value).map(Self).map_err(serde::de::Error::custom),
        }
    }
}

/// The keys that are known, and the servers that did not answer.
#[derive(Clone, Debug, Default, Serialize)]
pub struct QueryAnswer {
    /// By server name.
    pub failures: BTreeMap<OwnedServerName, Value>,
    /// User to device to keys.
    pub device_keys: BTreeMap<OwnedUserId, Map<String, Value>>,
    /// By user.
    pub master_keys: BTreeMap<OwnedUserId, Value>,
    /// By user.
    pub self_signing_keys: BTreeMap<OwnedUserId, Value>,
    /// The requester's own, if asked for.
    pub user_signing_keys: BTreeMap<OwnedUserId, Value>,
}

/// The answer of another server to `user/keys/query`.
#[derive(Debug, Default, Deserialize)]
struct PeerKeys {
    device_keys: BTreeMap<OwnedUserId, Map<String, Value>>,
    #[serde(default)]
    master_keys: BTreeMap<OwnedUserId, Value>,
    #[serde(default)]
    self_signing_keys: BTreeMap<OwnedUserId, Value>,
}

type Wanted = BTreeMap<OwnedUserId, WantedDevices>;

/// The client's patience, bounded.
pub(super) fn peer_timeout(timeout_ms: Option<u64>) -> Duration {
    Duration::from_millis(timeout_ms.unwrap_or(DEFAULT_TIMEOUT_MS).min(MAX_TIMEOUT_MS))
}

/// What a client is told about a server that did not answer.
pub(super) fn failure(error: &PeerError) -> Value {
    let status = match error {
        PeerError::Status { status, .. } => *status,
        _ => 503,
    };
    json!({ "status": status, "errcode": "M_UNKNOWN", "message": error.to_string(), "error": error.to_string() })
}

impl Core {
    /// The identity keys of these users as `requester` may see them.
    ///
    /// # Errors
    /// [`Error::Store`], `M_TOO_LARGE` for too many users; servers that fail are named in the answer.
    pub async fn query_keys(&self, requester: &UserId, query: KeysQuery) -> Result<QueryAnswer, Error> {
        if query.device_keys.len() > MAX_USERS {
            return Err(Error::TooLarge(format!("at most {MAX_USERS} users in one request").into()));
        }
        let timeout = peer_timeout(query.timeout);
        let mut answer = QueryAnswer::default();
        let mut remote: BTreeMap<OwnedServerName, Wanted> = BTreeMap::new();
        for (user, wanted) in query.device_keys {
            if self.is_local_user(&user) {
                self.query_local(&mut answer, user, &wanted.0, requester)?;
            } else if let Some(list) = self.cached_devices(&user)? {
                add_list(&mut answer, user, &wanted.0, list);
            } else {
                remote.entry(user.server_name().to_owned()).or_default().insert(user, wanted);
            }
        }
        let mut peers = stream::iter(remote)
            .map(|(server, wanted)| async move {
                let found = self.query_server(&server, wanted, timeout).await;
                (server, found)
            })
            .buffer_unordered(MAX_SERVERS_AT_ONCE);
        while let Some((server, found)) = peers.next().await {
            let (part, error) = found?;
            answer.device_keys.extend(part.device_keys);
            answer.master_keys.extend(part.master_keys);
            answer.self_signing_keys.extend(part.self_signing_keys);
            if let Some(error) = error {
                answer.failures.insert(server, failure(&error));
            }
        }
        self.add_own_verifications(&mut answer, requester)?;
        Ok(answer)
    }

    fn query_local(
        &self,
        answer: &mut QueryAnswer,
        user: OwnedUserId,
        wanted: &[OwnedDeviceId],
        requester: &UserId,
    ) -> Result<(), Error> {
        let devices = self.queried_devices(&user, wanted, Some(requester))?;
        if let Some(key) = self.cross_signing_key(&user, Usage::Master, Some(requester))? {
            answer.master_keys.insert(user.clone(), key);
        }
        if let Some(key) = self.cross_signing_key(&user, Usage::SelfSigning, Some(requester))? {
            answer.self_signing_keys.insert(user.clone(), key);
        }
        if user == requester
            && let Some(key) = self.cross_signing_key(&user, Usage::UserSigning, Some(requester))?
        {
            answer.user_signing_keys.insert(user.clone(), key);
        }
        answer.device_keys.insert(user, devices);
        Ok(())
    }

    /// The requester's own signatures over remote users' master keys live here, not there.
    fn add_own_verifications(&self, answer: &mut QueryAnswer, requester: &UserId) -> Result<(), Error> {
        for (user, key) in &mut answer.master_keys {
            if self.is_local_user(user) {
                continue;
            }
            let Some((id, _)) = only_key(key) else { continue };
            let target = id.trim_start_matches("ed25519:").to_owned();
            self.add_visible_signatures(key, user, &target, Some(requester))?;
        }
        Ok(())
    }

    /// What one server says of its users. Users who share a room with ours are fetched into the cache.
    async fn query_server(
        &self,
        server: &OwnedServerName,
        wanted: Wanted,
        timeout: Duration,
    ) -> Result<(QueryAnswer, Option<PeerError>), Error> {
        let mut answer = QueryAnswer::default();
        let mut rest = Wanted::new();
        let mut tracked = Vec::new();
        for (user, devices) in wanted {
            if tracked.len() < MAX_FETCHES_PER_SERVER && self.is_tracked(&user)? {
                tracked.push((user, devices));
            } else {
                rest.insert(user, devices);
            }
        }
        let mut fetches = stream::iter(tracked)
            .map(|(user, devices)| async move {
                let fetched = self.fetch_devices(&user, timeout).await;
                (user, devices, fetched)
            })
            .buffer_unordered(4);
        let mut failed = None;
        while let Some((user, devices, fetched)) = fetches.next().await {
            match fetched? {
                Ok(list) => add_list(&mut answer, user, &devices.0, list),
                Err(PeerError::Status { .. } | PeerError::Malformed(_)) => {
                    rest.insert(user, devices);
                }
                Err(error) => failed = Some(error),
            }
        }
        if failed.is_none() && !rest.is_empty() {
            match self.query_peer(server, &rest, timeout).await {
                Ok(keys) => add_peer_keys(&mut answer, &rest, keys),
                Err(error) => failed = Some(error),
            }
        }
        Ok((answer, failed))
    }

    async fn query_peer(
        &self,
        server: &OwnedServerName,
        wanted: &Wanted,
        timeout: Duration,
    ) -> Result<PeerKeys, PeerError> {
        let asked: BTreeMap<_, _> = wanted.iter().map(|(user, devices)| (user, &devices.0)).collect();
        let request = FederationRequest {
            destination: server.clone(),
            method: Method::Post,
            path_and_query: "/_matrix/federation/v1/user/keys/query".to_owned(),
            body: Some(json!({ "device_keys": asked })),
            signed: true,
            timeout,
            max_bytes: MAX_ANSWER_BYTES,
        };
        let response = self.ask_peer(request).await?;
        serde_json::from_slice(&response.body)
            .map_err(|_| PeerError::Malformed("the answer to a query of keys has the wrong form".to_owned()))
    }

    /// Whether the user shares a room with one of ours, so that their server tells us of changes.
    pub(crate) fn is_tracked(&self, user: &UserId) -> Result<bool, Error> {
        Ok(self.users_sharing_room(user)?.iter().any(|other| self.is_local_user(other)))
    }
}

/// A server speaks for the users it was asked about, and each key names its owner.
fn add_peer_keys(answer: &mut QueryAnswer, wanted: &Wanted, keys: PeerKeys) {
    for (user, mut devices) in keys.device_keys {
        if wanted.contains_key(&user) {
            devices.retain(|device, keys| names_owner(keys, &user, Some(device)));
            answer.device_keys.insert(user, devices);
        }
    }
    let owned = |(user, key): &(OwnedUserId, Value)| wanted.contains_key(user) && names_owner(key, user, None);
    answer.master_keys.extend(keys.master_keys.into_iter().filter(owned));
    answer.self_signing_keys.extend(keys.self_signing_keys.into_iter().filter(owned));
}

/// Whether keys do not say that they belong to another user, or another device if one is given. Keys that say nothing
/// are for clients to refuse.
pub(super) fn names_owner(keys: &Value, user: &UserId, device: Option<&str>) -> bool {
    let names = |field, wanted: &str| keys.get(field).is_none_or(|named| named.as_str() == Some(wanted));
    keys.is_object() && names("user_id", user.as_str()) && device.is_none_or(|device| names("device_id", device))
}

fn add_list(answer: &mut QueryAnswer, user: OwnedUserId, wanted: &[OwnedDeviceId], list: RemoteList) {
    let mut devices = Map::new();
    for (device, known) in list.devices {
        let asked = wanted.is_empty() || wanted.iter().any(|wanted| wanted.as_str() == device);
        if let (true, Some(mut keys)) = (asked, known.keys) {
            set_display_name(&mut keys, known.display_name);
            devices.insert(device, keys);
        }
    }
    if let Some(key) = list.master_key {
        answer.master_keys.insert(user.clone(), key);
    }
    if let Some(key) = list.self_signing_key {
        answer.self_signing_keys.insert(user.clone(), key);
    }
    answer.device_keys.insert(user, devices);
}

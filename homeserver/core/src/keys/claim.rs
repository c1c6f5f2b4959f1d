//! `POST /keys/claim`, for local clients and other servers.
//!
//! Spec: <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysclaim>.

use std::collections::BTreeMap;

use futures_util::{StreamExt, stream};
use matron_storage::{Batch, CommitError, Table};
use ruma::{DeviceId, OwnedDeviceId, OwnedServerName, OwnedUserId, UserId};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{
    one_time::{FallbackKey, fallback_key},
    query::{MAX_SERVERS_AT_ONCE, failure, peer_timeout},
    upload::MAX_TRIES,
};
use crate::{
    Core, Error,
    house::{from_json, to_json},
    ports::{FederationRequest, PeerError, http_method::Method},
};

/// How many devices one request may name.
const MAX_CLAIMS: usize = 10_000;

/// The largest answer of another server, bytes.
const MAX_ANSWER_BYTES: usize = 8 * 1024 * 1024;

/// User to device to algorithm.
pub type Claims = BTreeMap<OwnedUserId, BTreeMap<OwnedDeviceId, String>>;

/// User to device to `<algorithm>:<id>` to key.
pub type ClaimedKeys = BTreeMap<OwnedUserId, BTreeMap<OwnedDeviceId, Map<String, Value>>>;

/// Which keys a client wants.
#[derive(Clone, Debug, Deserialize)]
pub struct KeysClaim {
    /// How long to wait for other servers, ms.
    #[serde(default)]
    pub timeout: Option<u64>,
    /// Whose keys.
    pub one_time_keys: Claims,
}

/// The keys that were there, and the servers that did not answer.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ClaimAnswer {
    /// By server name.
    pub failures: BTreeMap<OwnedServerName, Value>,
    /// What was claimed.
    pub one_time_keys: ClaimedKeys,
}

impl Core {
    /// Each key of the answer was given to this caller alone, fallback keys excepted.
    ///
    /// # Errors
    /// [`Error::Store`], `M_TOO_LARGE` for too many devices; servers that fail are named in the answer.
    pub async fn claim_keys(&self, request: KeysClaim) -> Result<ClaimAnswer, Error> {
        if request.one_time_keys.values().map(BTreeMap::len).sum::<usize>() > MAX_CLAIMS {
            return Err(Error::TooLarge(format!("at most {MAX_CLAIMS} devices in one request").into()));
        }
        let mut local = Claims::new();
        let mut remote: BTreeMap<OwnedServerName, Claims> = BTreeMap::new();
        for (user, devices) in request.one_time_keys {
            if self.is_local_user(&user) {
                local.insert(user, devices);
            } else {
                remote.entry(user.server_name().to_owned()).or_default().insert(user, devices);
            }
        }
        let mut answer = ClaimAnswer { one_time_keys: self.claim_local_keys(local).await?, ..ClaimAnswer::default() };
        let timeout = peer_timeout(request.timeout);
        let mut peers = stream::iter(remote)
            .map(|(server, claims)| async move {
                let answer = self.claim_remote_keys(&server, &claims, timeout).await;
                (server, answer)
            })
            .buffer_unordered(MAX_SERVERS_AT_ONCE);
        while let Some((server, result)) = peers.next().await {
            match result {
                Ok(keys) => answer.one_time_keys.extend(keys),
                Err(error) => {
                    answer.failures.insert(server, failure(&error));
                }
            }
        }
        Ok(answer)
    }

    /// Keys of our own users' devices; users and devices without keys are left out.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(super) async fn claim_local_keys(&self, claims: Claims) -> Result<ClaimedKeys, Error> {
        let mut claimed = ClaimedKeys::new();
        for (user, devices) in claims {
            for (device, algorithm) in devices {
                if let Some((name, key)) = self.claim_local_key(&user, &device, &algorithm).await? {
                    let of_device = claimed.entry(user.clone()).or_default().entry(device).or_default();
                    of_device.insert(name, key);
                }
            }
        }
        Ok(claimed)
    }

    /// One key, taken from the store in the same batch that gives it away: nobody else ever gets it.
    async fn claim_local_key(
        &self,
        user: &UserId,
        device: &DeviceId,
        algorithm: &str,
    ) -> Result<Option<(String, Value)>, Error> {
        for _ in 0..MAX_TRIES {
            let mut tally = self.read_tally(user, device)?;
            let Some(first) = self.one_time_keys(user, device, Some(algorithm), 1)?.pop() else {
                return self.take_fallback_key(user, device, algorithm).await;
            };
            let key = from_json(Table::DeviceOneTimeKey, &first.bytes)?;
            let mut batch = Batch::new();
            batch.expect_equals(Table::DeviceOneTimeKey, first.row.clone(), first.bytes);
            batch.delete(Table::DeviceOneTimeKey, first.row);
            if let Some(count) = tally.tally.counts.get_mut(algorithm) {
                *count = count.saturating_sub(1);
            }
            tally.write(&mut batch)?;
            match self.store.submit(batch).await {
                Ok(_) => return Ok(Some((first.name, key))),
                Err(CommitError::Conflict(_)) => tokio::task::yield_now().await,
                Err(CommitError::Store(error)) => return Err(error.into()),
            }
        }
        Err(Error::LimitExceeded { retry_after_ms: 1_000 })
    }

    async fn take_fallback_key(
        &self,
        user: &UserId,
        device: &DeviceId,
        algorithm: &str,
    ) -> Result<Option<(String, Value)>, Error> {
        let row = fallback_key(user, device, algorithm);
        for _ in 0..MAX_TRIES {
            let mut tally = self.read_tally(user, device)?;
            let Some(bytes) = self.store.get(Table::DeviceFallbackKey, row.as_bytes())? else { return Ok(None) };
            let stored: FallbackKey = from_json(Table::DeviceFallbackKey, &bytes)?;
            if stored.used {
                return Ok(Some((stored.name, stored.key)));
            }
            let mut batch = Batch::new();
            batch.expect_equals(Table::DeviceFallbackKey, row.clone(), bytes);
            let used = FallbackKey { used: true, ..stored.clone() };
            batch.put(Table::DeviceFallbackKey, row.clone(), to_json(&used)?);
            tally.tally.unused_fallback.retain(|unused| unused != algorithm);
            tally.write(&mut batch)?;
            match self.store.submit(batch).await {
                Ok(_) => return Ok(Some((stored.name, stored.key))),
                Err(CommitError::Conflict(_)) => tokio::task::yield_now().await,
                Err(CommitError::Store(error)) => return Err(error.into()),
            }
        }
        Err(Error::LimitExceeded { retry_after_ms: 1_000 })
    }

    async fn claim_remote_keys(
        &self,
        server: &OwnedServerName,
        claims: &Claims,
        timeout: std::time::Duration,
    ) -> Result<ClaimedKeys, PeerError> {
        #[derive(Deserialize)]
        struct Answer {
            one_time_keys: ClaimedKeys,
        }
        let request = FederationRequest {
            destination: server.clone(),
            method: Method::Post,
            path_and_query: "/_matrix/federation/v1/user/keys/claim".to_owned(),
            body: Some(json!({ "one_time_keys": claims })),
            signed: true,
            timeout,
            max_bytes: MAX_ANSWER_BYTES,
        };
        let response = self.ask_peer(request).await?;
        let answer: Answer = serde_json::from_slice(&response.body)
            .map_err(|_| PeerError::Malformed("the answer to a claim of keys has the wrong form".to_owned()))?;
        let mut keys = answer.one_time_keys;
        // A server speaks for its own users, and only of what it was asked.
        keys.retain(|user, devices| match claims.get(user) {
            Some(asked) => {
                devices.retain(|device, _| asked.contains_key(device));
                true
            }
            None => false,
        });
        Ok(keys)
    }
}

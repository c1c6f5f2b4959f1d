//! What other servers may ask of our users' devices and keys.
//!
//! Spec: <https://spec.matrix.org/v1.19/server-server-api/#end-to-end-encryption>.

use std::collections::BTreeMap;

use ruma::{OwnedUserId, UserId};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    claim::{ClaimedKeys, Claims},
    local::Usage,
    query::WantedDevices,
};
use crate::{Core, Error};

/// How many users or devices one request may name.
const MAX_ASKED: usize = 10_000;

/// Body of `POST /user/keys/query`.
#[derive(Clone, Debug, Deserialize)]
pub struct FederationKeysQuery {
    /// User to devices; no devices mean all.
    pub device_keys: BTreeMap<OwnedUserId, WantedDevices>,
}

/// Answer of `POST /user/keys/query`.
#[derive(Clone, Debug, Default, Serialize)]
pub struct FederationKeys {
    /// User to device to keys.
    pub device_keys: BTreeMap<OwnedUserId, Map<String, Value>>,
    /// By user.
    pub master_keys: BTreeMap<OwnedUserId, Value>,
    /// By user.
    pub self_signing_keys: BTreeMap<OwnedUserId, Value>,
}

/// Body of `POST /user/keys/claim`.
#[derive(Clone, Debug, Deserialize)]
pub struct FederationKeysClaim {
    /// User to device to algorithm.
    pub one_time_keys: Claims,
}

/// Answer of `POST /user/keys/claim`.
#[derive(Clone, Debug, Default, Serialize)]
pub struct FederationClaimed {
    /// What was there.
    pub one_time_keys: ClaimedKeys,
}

/// Answer of `GET /user/devices/{userId}`.
#[derive(Clone, Debug, Serialize)]
pub struct UserDevices {
    /// Whose devices.
    pub user_id: OwnedUserId,
    /// Of the last `m.device_list_update` that is part of the answer.
    pub stream_id: u64,
    /// Those that published keys.
    pub devices: Vec<UserDevice>,
    /// The user's master key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub master_key: Option<Value>,
    /// The user's self-signing key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub self_signing_key: Option<Value>,
}

/// One device of [`UserDevices`].
#[derive(Clone, Debug, Serialize)]
pub struct UserDevice {
    /// Its id.
    pub device_id: String,
    /// Its identity keys.
    pub keys: Value,
    /// Its public name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_display_name: Option<String>,
}

impl Core {
    /// A local user's devices and identity, as every server may see them.
    ///
    /// # Errors
    /// `M_NOT_FOUND` for a user of another server, or one that does not exist.
    pub fn federation_user_devices(&self, user: &UserId) -> Result<UserDevices, Error> {
        if !self.is_local_user(user) || self.account(user)?.is_none() {
            return Err(Error::not_found("this is not a user of this server"));
        }
        // The sequence number is read first: an answer that is newer than it says does no harm.
        let stream_id = self.device_list_stream_id(user)?;
        let devices = self.local_devices(user)?.into_iter().filter_map(|device| {
            Some(UserDevice {
                device_id: device.device_id.to_string(),
                keys: device.keys?,
                device_display_name: device.display_name,
            })
        });
        Ok(UserDevices {
            user_id: user.to_owned(),
            stream_id,
            devices: devices.collect(),
            master_key: self.cross_signing_key(user, Usage::Master, None)?,
            self_signing_key: self.cross_signing_key(user, Usage::SelfSigning, None)?,
        })
    }

    /// The identity keys of local users, as every server may see them; others are left out.
    ///
    /// # Errors
    /// `M_TOO_LARGE`, [`Error::Store`].
    pub fn federation_keys_query(&self, query: FederationKeysQuery) -> Result<FederationKeys, Error> {
        if query.device_keys.len() > MAX_ASKED {
            return Err(Error::TooLarge(format!("at most {MAX_ASKED} users in one request").into()));
        }
        let mut answer = FederationKeys::default();
        for (user, wanted) in query.device_keys {
            if !self.is_local_user(&user) {
                continue;
            }
            if let Some(key) = self.cross_signing_key(&user, Usage::Master, None)? {
                answer.master_keys.insert(user.clone(), key);
            }
            if let Some(key) = self.cross_signing_key(&user, Usage::SelfSigning, None)? {
                answer.self_signing_keys.insert(user.clone(), key);
            }
            let devices = self.queried_devices(&user, &wanted.0, None)?;
            answer.device_keys.insert(user, devices);
        }
        Ok(answer)
    }

    /// One-time keys of local users, each given to this caller alone.
    ///
    /// # Errors
    /// `M_TOO_LARGE`, [`Error::Store`].
    pub async fn federation_keys_claim(&self, request: FederationKeysClaim) -> Result<FederationClaimed, Error> {
        let mut claims = request.one_time_keys;
        if claims.values().map(BTreeMap::len).sum::<usize>() > MAX_ASKED {
            return Err(Error::TooLarge(format!("at most {MAX_ASKED} devices in one request").into()));
        }
        claims.retain(|user, _| self.is_local_user(user));
        Ok(FederationClaimed { one_time_keys: self.claim_local_keys(claims).await? })
    }
}

//! Whose devices are known, and whose must be asked for again.
//!
//! SPEC: Client-Server API, "Tracking the device list for a user".

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::device_keys::Device;
use crate::client::KeysQueryResponse;

/// Most devices of one user that are believed; a flood beyond it is cut.
const MAX_DEVICES: usize = 200;

/// The devices of one user.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Tracked {
    /// Must be asked for before the next key is shared.
    stale: bool,
    devices: BTreeMap<String, Device>,
}

/// The devices of everyone with whom we share an encrypted room.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct DeviceLists {
    users: BTreeMap<String, Tracked>,
}

impl DeviceLists {
    /// Those of `users` whose devices are unknown or stale.
    pub(crate) fn unknown_among(&self, users: &[String]) -> Vec<String> {
        let fresh = |user: &String| self.users.get(user).is_some_and(|tracked| !tracked.stale);
        users.iter().filter(|user| !fresh(user)).cloned().collect()
    }

    /// These users changed their devices: what is known of them is stale.
    pub(crate) fn mark_changed(&mut self, users: &[String]) -> bool {
        let mut any = false;
        for user in users {
            if let Some(tracked) = self.users.get_mut(user) {
                any |= !tracked.stale;
                tracked.stale = true;
            }
        }
        any
    }

    /// No encrypted room is shared with these users any more.
    pub(crate) fn forget(&mut self, users: &[String]) -> bool {
        users.iter().fold(false, |any, user| self.users.remove(user).is_some() | any)
    }

    /// Everything is stale: the place in the sync stream was lost.
    pub(crate) fn mark_all_stale(&mut self) {
        for tracked in self.users.values_mut() {
            tracked.stale = true;
        }
    }

    /// Takes the answer for the users that were asked about.
    ///
    /// A device that changes its fingerprint under the same id is not believed: the first one stays.
    pub(crate) fn receive(&mut self, asked: &[String], response: &KeysQueryResponse) {
        let none = BTreeMap::new();
        for user in asked {
            let server = user.split_once(':').map_or("", |(_, server)| server);
            let published = response.device_keys.get(user);
            if published.is_none() && response.failures.contains_key(server) {
                continue;
            }
            let published = published.unwrap_or(&none);
            let tracked = self.users.entry(user.clone()).or_default();
            tracked.stale = response.failures.contains_key(server);
            let known = std::mem::take(&mut tracked.devices);
            tracked.devices = published
                .iter()
                .filter_map(|(device_id, keys)| believed(user, device_id, keys, &known))
                .take(MAX_DEVICES)
                .collect();
        }
    }

    /// Every known device of these users.
    pub(crate) fn devices_of<'a>(&'a self, users: &'a [String]) -> impl Iterator<Item = &'a Device> {
        users.iter().filter_map(|user| self.users.get(user)).flat_map(|t| t.devices.values())
    }

    /// The device of this user with this identity key.
    pub(crate) fn find_by_curve25519(&self, user_id: &str, key: &str) -> Option<&Device> {
        let tracked = self.users.get(user_id)?;
        tracked.devices.values().find(|device| device.curve25519.to_base64() == key)
    }
}

fn believed(
    user_id: &str,
    device_id: &str,
    keys: &Value,
    known: &BTreeMap<String, Device>,
) -> Option<(String, Device)> {
    match (Device::verify(user_id, device_id, keys), known.get(device_id)) {
        (Ok(device), Some(before)) if device.ed25519 != before.ed25519 => {
            tracing::warn!("a device changed its fingerprint under the same id; the first one is kept");
            Some((device_id.to_owned(), before.clone()))
        }
        (Ok(device), _) => Some((device_id.to_owned(), device)),
        (Err(error), _) => {
            tracing::debug!(%error, "device keys are not believed");
            None
        }
    }
}

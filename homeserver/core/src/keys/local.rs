//! The keys of our own users, as each reader may see them.

use matron_storage::{Key, KeyReader, Order, Table};
use ruma::{DeviceId, OwnedDeviceId, UserId};
use serde_json::{Map, Value};

use super::signed_json::add_signature;
use crate::{Core, Error};

/// How many signatures of one signer over one key are looked at.
const MAX_SIGNATURES: usize = 200;

/// What a cross-signing key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Usage {
    /// Signs the other two, and is what others verify.
    Master,
    /// Signs the user's own devices.
    SelfSigning,
    /// Signs other users' master keys; its owner alone sees it.
    UserSigning,
}

impl Usage {
    /// Its name in `usage`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Master => "master",
            Self::SelfSigning => "self_signing",
            Self::UserSigning => "user_signing",
        }
    }
}

/// A device as its owner's server knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalDevice {
    /// Its id.
    pub device_id: OwnedDeviceId,
    /// Its public name.
    pub display_name: Option<String>,
    /// Its identity keys with the owner's signatures; absent until the device publishes them.
    pub keys: Option<Value>,
}

impl Core {
    /// A local user's devices, with what the whole federation may see of their keys.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn local_devices(&self, user: &UserId) -> Result<Vec<LocalDevice>, Error> {
        let mut devices = Vec::new();
        for (device_id, device) in self.load_devices(user)? {
            let keys = self.device_keys(user, &device_id, None)?;
            devices.push(LocalDevice { device_id, display_name: device.display_name, keys });
        }
        Ok(devices)
    }

    /// The device's identity keys with the signatures that `observer` may see: the owner's, and the observer's own.
    pub(super) fn device_keys(
        &self,
        user: &UserId,
        device: &DeviceId,
        observer: Option<&UserId>,
    ) -> Result<Option<Value>, Error> {
        let Some(mut keys) = self.load::<Value>(Table::DeviceKeys, &Key::new().text(user).text(device))? else {
            return Ok(None);
        };
        self.add_visible_signatures(&mut keys, user, device.as_str(), observer)?;
        Ok(Some(keys))
    }

    /// The devices asked for (all, if none is named) with their names in `unsigned`.
    pub(super) fn queried_devices(
        &self,
        user: &UserId,
        wanted: &[OwnedDeviceId],
        observer: Option<&UserId>,
    ) -> Result<Map<String, Value>, Error> {
        let mut devices = Map::new();
        for (id, device) in self.load_devices(user)? {
            if !wanted.is_empty() && !wanted.contains(&id) {
                continue;
            }
            if let Some(mut keys) = self.device_keys(user, &id, observer)? {
                set_display_name(&mut keys, device.display_name);
                devices.insert(id.to_string(), keys);
            }
        }
        Ok(devices)
    }

    /// A cross-signing key with the signatures that `observer` may see.
    pub(super) fn cross_signing_key(
        &self,
        user: &UserId,
        usage: Usage,
        observer: Option<&UserId>,
    ) -> Result<Option<Value>, Error> {
        let row = Key::new().text(user).text(usage.as_str());
        let Some(mut key) = self.load::<Value>(Table::CrossSigningKey, &row)? else { return Ok(None) };
        if let Some((id, _)) = super::signed_json::only_key(&key) {
            let target = id.trim_start_matches("ed25519:").to_owned();
            self.add_visible_signatures(&mut key, user, &target, observer)?;
        }
        Ok(Some(key))
    }

    /// Adds the signatures uploaded by the key's owner and by the observer; nobody sees whom others verified.
    pub(super) fn add_visible_signatures(
        &self,
        keys: &mut Value,
        owner: &UserId,
        target_key: &str,
        observer: Option<&UserId>,
    ) -> Result<(), Error> {
        let signers = std::iter::once(owner).chain(observer.filter(|observer| *observer != owner));
        for signer in signers {
            let prefix = Key::new().text(owner).text(target_key).text(signer);
            let rows = self.store.scan(Table::KeySignature, &prefix.prefix(), Order::Ascending, MAX_SIGNATURES)?;
            for (row, bytes) in rows {
                let mut key = KeyReader::new(&row);
                let (_target, _key, _signer) = (key.text(), key.text(), key.text());
                let (Some(signer_key), Ok(signature)) = (key.text(), String::from_utf8(bytes)) else { continue };
                add_signature(keys, signer.as_str(), &signer_key, signature);
            }
        }
        Ok(())
    }
}

/// Puts a device's public name where readers expect it.
pub(super) fn set_display_name(keys: &mut Value, display_name: Option<String>) {
    let Some(fields) = keys.as_object_mut() else { return };
    let mut unsigned = Map::new();
    if let Some(name) = display_name {
        unsigned.insert("device_display_name".to_owned(), Value::String(name));
    }
    fields.insert("unsigned".to_owned(), Value::Object(unsigned));
}

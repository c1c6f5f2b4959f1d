//! Other people's devices: their published keys, verified.
//!
//! SPEC: Client-Server API, "Device keys" and "One-time and fallback keys".

use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;
use vodozemac::{Curve25519PublicKey, Ed25519PublicKey};

use super::json::{self, SignedJsonError};
use super::{MEGOLM, OLM};

/// Why published keys were not believed.
#[derive(Debug, Error)]
pub enum DeviceKeysError {
    /// A field is missing, malformed, or names another user or device.
    #[error("the device keys are malformed or name another device")]
    Shape,
    /// The device speaks neither Olm nor Megolm.
    #[error("the device does not support Olm and Megolm")]
    Algorithms,
    /// A key is no key.
    #[error("a key is malformed")]
    Key(#[from] vodozemac::KeyError),
    /// The signature does not hold.
    #[error("the keys are not signed by their device")]
    Signature(#[from] SignedJsonError),
}

/// One device whose keys carry its own valid signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Its user.
    pub user_id: String,
    /// Its id.
    pub device_id: String,
    /// Identity key for Olm.
    pub curve25519: Curve25519PublicKey,
    /// Fingerprint key for signatures.
    pub ed25519: Ed25519PublicKey,
}

impl Device {
    /// Reads and verifies `keys` as the device keys of exactly this user and device.
    ///
    /// # Errors
    /// [`DeviceKeysError`].
    pub fn verify(user_id: &str, device_id: &str, keys: &Value) -> Result<Self, DeviceKeysError> {
        let field = |name: &str| keys.get(name).and_then(Value::as_str);
        if field("user_id") != Some(user_id) || field("device_id") != Some(device_id) {
            return Err(DeviceKeysError::Shape);
        }
        let algorithms = keys.get("algorithms").and_then(Value::as_array).ok_or(DeviceKeysError::Shape)?;
        let speaks = |name: &str| algorithms.iter().any(|known| known.as_str() == Some(name));
        if !speaks(OLM) || !speaks(MEGOLM) {
            return Err(DeviceKeysError::Algorithms);
        }
        let key = |algorithm: &str| {
            keys.get("keys")
                .and_then(|keys| keys.get(format!("{algorithm}:{device_id}")))
                .and_then(Value::as_str)
                .ok_or(DeviceKeysError::Shape)
        };
        let device = Self {
            user_id: user_id.to_owned(),
            device_id: device_id.to_owned(),
            curve25519: Curve25519PublicKey::from_base64(key("curve25519")?)?,
            ed25519: Ed25519PublicKey::from_base64(key("ed25519")?)?,
        };
        device.verify_signature(keys)?;
        Ok(device)
    }

    /// Reads `sender_device_keys` of an Olm payload: the device names itself, its signature proves it.
    ///
    /// # Errors
    /// [`DeviceKeysError`].
    pub fn verify_own_claim(user_id: &str, keys: &Value) -> Result<Self, DeviceKeysError> {
        let device_id = keys.get("device_id").and_then(Value::as_str).ok_or(DeviceKeysError::Shape)?;
        Self::verify(user_id, device_id, keys)
    }

    /// The key in a one-time or fallback key that this device signed.
    ///
    /// # Errors
    /// [`DeviceKeysError`].
    pub fn verify_one_time_key(&self, key: &Value) -> Result<Curve25519PublicKey, DeviceKeysError> {
        self.verify_signature(key)?;
        let key = key.get("key").and_then(Value::as_str).ok_or(DeviceKeysError::Shape)?;
        Ok(Curve25519PublicKey::from_base64(key)?)
    }

    fn verify_signature(&self, value: &Value) -> Result<(), SignedJsonError> {
        json::verify(value, &self.user_id, &format!("ed25519:{}", self.device_id), &self.ed25519)
    }
}

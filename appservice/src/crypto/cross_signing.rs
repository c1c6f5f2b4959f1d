//! Our users' cross-signing keys: one person's proof that a device is theirs.
//!
//! Clients that hide messages of unsigned devices show ours. SPEC: Client-Server API, "Cross-signing".

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use vodozemac::Ed25519SecretKey;
use zeroize::Zeroizing;

use super::json::{self, SignedJsonError};

/// The three keys, as seeds.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct CrossSigning {
    master: Seed,
    self_signing: Seed,
    user_signing: Seed,
    /// The homeserver has them.
    #[serde(default)]
    pub(crate) published: bool,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
struct Seed(Zeroizing<String>);

impl TryFrom<String> for Seed {
    type Error = vodozemac::KeyError;

    fn try_from(seed: String) -> Result<Self, Self::Error> {
        let seed = Zeroizing::new(seed);
        Ed25519SecretKey::from_base64(&seed)?;
        Ok(Self(seed))
    }
}

impl From<Seed> for String {
    fn from(seed: Seed) -> Self {
        seed.0.as_str().to_owned()
    }
}

impl Seed {
    fn new() -> Self {
        Self(Zeroizing::new(Ed25519SecretKey::new().to_base64()))
    }

    fn key(&self) -> Result<Ed25519SecretKey, SignedJsonError> {
        Ed25519SecretKey::from_base64(&self.0).map_err(|_checked_on_entry| SignedJsonError::Missing)
    }
}

/// What goes to the homeserver, in this order.
#[derive(Debug, Clone)]
pub struct CrossSigningUpload {
    /// Body of `POST /keys/device_signing/upload`.
    pub keys: Value,
    /// Body of `POST /keys/signatures/upload`: our device signed by the self-signing key.
    pub signatures: Value,
}

impl CrossSigning {
    pub(crate) fn new() -> Self {
        Self { master: Seed::new(), self_signing: Seed::new(), user_signing: Seed::new(), published: false }
    }

    pub(crate) fn sign_device(&self, user_id: &str, keys: &mut Value) -> Result<(), SignedJsonError> {
        let key = self.self_signing.key()?;
        let id = format!("ed25519:{}", key.public_key().to_base64());
        json::add_signature(keys, user_id, &id, |bytes| key.sign(bytes.as_bytes()))
    }

    /// The three public keys; the two lower ones signed by the master key.
    pub(crate) fn public_keys(
        &self,
        user_id: &str,
        sign_as_device: impl FnOnce(&mut Value) -> Result<(), SignedJsonError>,
    ) -> Result<Value, SignedJsonError> {
        let master = self.master.key()?;
        let master_id = format!("ed25519:{}", master.public_key().to_base64());
        let public = |usage: &str, key: &Ed25519SecretKey| {
            let public = key.public_key().to_base64();
            json!({"user_id": user_id, "usage": [usage], "keys": {format!("ed25519:{public}"): public}})
        };
        let mut master_key = public("master", &master);
        sign_as_device(&mut master_key)?;
        let mut self_signing_key = public("self_signing", &self.self_signing.key()?);
        let mut user_signing_key = public("user_signing", &self.user_signing.key()?);
        for key in [&mut self_signing_key, &mut user_signing_key] {
            json::add_signature(key, user_id, &master_id, |bytes| master.sign(bytes.as_bytes()))?;
        }
        Ok(json!({
            "master_key": master_key,
            "self_signing_key": self_signing_key,
            "user_signing_key": user_signing_key,
        }))
    }
}

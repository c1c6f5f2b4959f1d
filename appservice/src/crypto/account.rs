//! Our own device's keys: identity, one-time and fallback keys, and what of them must be published.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use vodozemac::olm::{Account, AccountPickle};

use super::cross_signing::CrossSigning;
use super::json::{self, SignedJsonError};
use super::{MEGOLM, OLM};

/// What a key upload carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UploadKind {
    /// Device keys, and the first one-time keys.
    First,
    /// One-time or fallback keys.
    Refill,
}

/// Our device's account.
pub(crate) struct OwnAccount {
    pub(crate) user_id: String,
    pub(crate) device_id: String,
    pub(crate) account: Account,
    /// The homeserver has the device keys.
    pub(crate) published: bool,
    pub(crate) cross_signing: Option<CrossSigning>,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct OwnAccountPickle {
    user_id: String,
    device_id: String,
    account: AccountPickle,
    published: bool,
    cross_signing: Option<CrossSigning>,
}

impl OwnAccount {
    pub(crate) fn new(user_id: &str, device_id: &str) -> Self {
        Self {
            user_id: user_id.to_owned(),
            device_id: device_id.to_owned(),
            account: Account::new(),
            published: false,
            cross_signing: None,
        }
    }

    pub(crate) fn pickle(&self) -> OwnAccountPickle {
        OwnAccountPickle {
            user_id: self.user_id.clone(),
            device_id: self.device_id.clone(),
            account: self.account.pickle(),
            published: self.published,
            cross_signing: self.cross_signing.clone(),
        }
    }

    pub(crate) fn from_pickle(pickle: OwnAccountPickle) -> Self {
        Self {
            user_id: pickle.user_id,
            device_id: pickle.device_id,
            account: Account::from_pickle(pickle.account),
            published: pickle.published,
            cross_signing: pickle.cross_signing,
        }
    }

    pub(crate) fn key_id(&self) -> String {
        format!("ed25519:{}", self.device_id)
    }

    pub(crate) fn sign(&self, value: &mut Value) -> Result<(), SignedJsonError> {
        json::add_signature(value, &self.user_id, &self.key_id(), |bytes| self.account.sign(bytes))
    }

    /// Our device keys, signed by themselves (and by our self-signing key, where there is one).
    pub(crate) fn device_keys(&self) -> Result<Value, SignedJsonError> {
        let device_id = &self.device_id;
        let mut keys = json!({
            "user_id": self.user_id,
            "device_id": device_id,
            "algorithms": [OLM, MEGOLM],
            "keys": {
                format!("curve25519:{device_id}"): self.account.curve25519_key().to_base64(),
                format!("ed25519:{device_id}"): self.account.ed25519_key().to_base64(),
            },
        });
        self.sign(&mut keys)?;
        if let Some(cross_signing) = &self.cross_signing {
            cross_signing.sign_device(&self.user_id, &mut keys)?;
        }
        Ok(keys)
    }

    /// Makes one-time keys up to the homeserver's share and a fallback key where it has none; gives whether any was made.
    pub(crate) fn refill(&mut self, on_server: u64, needs_fallback: bool) -> bool {
        let mut any = false;
        let most = self.account.max_number_of_one_time_keys();
        let on_server = usize::try_from(on_server).unwrap_or(usize::MAX);
        let waiting = self.account.one_time_keys().len();
        let wanted = most.saturating_sub(on_server.saturating_add(waiting));
        if on_server < most / 2 && wanted > 0 {
            self.account.generate_one_time_keys(wanted);
            any = true;
        }
        if needs_fallback && self.account.fallback_key().is_empty() {
            self.account.generate_fallback_key();
            any = true;
        }
        any
    }

    /// The body of `POST /keys/upload`, or `None` where everything is published.
    pub(crate) fn upload_body(&self) -> Result<Option<(UploadKind, Value)>, SignedJsonError> {
        let one_time = self.signed_keys(self.account.one_time_keys(), false)?;
        let fallback = self.signed_keys(self.account.fallback_key(), true)?;
        if self.published && one_time.is_empty() && fallback.is_empty() {
            return Ok(None);
        }
        let mut body = json!({"one_time_keys": one_time, "fallback_keys": fallback});
        let kind = if self.published { UploadKind::Refill } else { UploadKind::First };
        if let (UploadKind::First, Some(fields)) = (kind, body.as_object_mut()) {
            fields.insert("device_keys".to_owned(), self.device_keys()?);
        }
        Ok(Some((kind, body)))
    }

    fn signed_keys(
        &self,
        keys: impl IntoIterator<Item = (vodozemac::KeyId, vodozemac::Curve25519PublicKey)>,
        fallback: bool,
    ) -> Result<Map<String, Value>, SignedJsonError> {
        let mut out = Map::new();
        for (id, key) in keys {
            let mut signed = if fallback {
                json!({"key": key.to_base64(), "fallback": true})
            } else {
                json!({"key": key.to_base64()})
            };
            self.sign(&mut signed)?;
            out.insert(format!("signed_curve25519:{}", id.to_base64()), signed);
        }
        Ok(out)
    }
}

//! Device keys, one-time keys and to-device messages.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{ClientError, Repeat, Session, segment};

/// Answer to `POST /keys/upload`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct KeysUploadResponse {
    /// Unclaimed keys on the homeserver, by algorithm.
    #[serde(default)]
    pub one_time_key_counts: BTreeMap<String, u64>,
}

/// Answer to `POST /keys/query`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct KeysQueryResponse {
    /// Device keys by user and device.
    #[serde(default)]
    pub device_keys: BTreeMap<String, BTreeMap<String, Value>>,
    /// Master cross-signing keys by user.
    #[serde(default)]
    pub master_keys: BTreeMap<String, Value>,
    /// Servers that did not answer.
    #[serde(default)]
    pub failures: BTreeMap<String, Value>,
}

/// Answer to `POST /keys/claim`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct KeysClaimResponse {
    /// By user and device, one key each, under its key id.
    #[serde(default)]
    pub one_time_keys: BTreeMap<String, BTreeMap<String, BTreeMap<String, Value>>>,
    /// Servers that did not answer.
    #[serde(default)]
    pub failures: BTreeMap<String, Value>,
}

impl Session {
    /// The homeserver publishes these keys afterwards.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn upload_keys(&self, body: &Value) -> Result<KeysUploadResponse, ClientError> {
        self.post("/_matrix/client/v3/keys/upload", body, Repeat::Idempotent).await
    }

    /// The device keys of these users.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn query_keys(&self, users: &[String]) -> Result<KeysQueryResponse, ClientError> {
        let device_keys: BTreeMap<&str, [&str; 0]> = users.iter().map(|user| (user.as_str(), [])).collect();
        let body = json!({"device_keys": device_keys, "timeout": 10_000});
        self.post("/_matrix/client/v3/keys/query", &body, Repeat::Idempotent).await
    }

    /// One one-time key of each of these devices, taken from the homeserver.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn claim_keys(
        &self,
        devices: &BTreeMap<String, BTreeMap<String, String>>,
    ) -> Result<KeysClaimResponse, ClientError> {
        let body = json!({"one_time_keys": devices, "timeout": 10_000});
        self.post("/_matrix/client/v3/keys/claim", &body, Repeat::Idempotent).await
    }

    /// The messages are queued for their devices afterwards, once for this transaction id.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn send_to_device(
        &self,
        event_type: &str,
        txn_id: &str,
        messages: &BTreeMap<String, BTreeMap<String, Value>>,
    ) -> Result<(), ClientError> {
        let path = format!("/_matrix/client/v3/sendToDevice/{}/{}", segment(event_type), segment(txn_id));
        self.put::<Value>(&path, &json!({"messages": messages})).await.map(drop)
    }

    /// The user's cross-signing keys are these afterwards.
    ///
    /// # Errors
    /// [`ClientError`]; 401 on homeservers that ask even application services for interactive authentication.
    pub async fn upload_cross_signing(&self, body: &Value) -> Result<(), ClientError> {
        let path = "/_matrix/client/v3/keys/device_signing/upload";
        self.post::<Value>(path, body, Repeat::Idempotent).await.map(drop)
    }

    /// The signatures stand beside the keys they sign afterwards.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn upload_signatures(&self, body: &Value) -> Result<(), ClientError> {
        let path = "/_matrix/client/v3/keys/signatures/upload";
        self.post::<Value>(path, body, Repeat::Idempotent).await.map(drop)
    }
}

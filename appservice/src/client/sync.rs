//! `/sync`, for what belongs to a device alone: to-device messages, device lists and key counts.
//!
//! Room events come by transactions, so the filter leaves rooms out.

use std::collections::BTreeMap;
use std::time::Duration;

use http::Method;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{ClientError, Repeat, Session};

/// No rooms, no presence, no account data.
const FILTER: &str = r#"{"room":{"rooms":[]},"presence":{"types":[]},"account_data":{"types":[]}}"#;

/// Whose devices changed.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct DeviceLists {
    /// Users whose keys must be fetched anew.
    #[serde(default)]
    pub changed: Vec<String>,
    /// Users with whom no encrypted room is shared any more.
    #[serde(default)]
    pub left: Vec<String>,
}

/// To-device messages.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ToDevice {
    /// In order of arrival.
    #[serde(default)]
    pub events: Vec<Value>,
}

/// The device's part of a sync.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct SyncResponse {
    /// Where the next sync starts.
    pub next_batch: String,
    /// To-device messages.
    #[serde(default)]
    pub to_device: ToDevice,
    /// Whose devices changed.
    #[serde(default)]
    pub device_lists: DeviceLists,
    /// Unclaimed keys on the homeserver, by algorithm.
    #[serde(default)]
    pub device_one_time_keys_count: BTreeMap<String, u64>,
    /// Algorithms with an unused fallback key; `None` where the homeserver has no fallback keys.
    #[serde(default)]
    pub device_unused_fallback_key_types: Option<Vec<String>>,
}

impl Session {
    /// What happened to this device since `since`, waiting up to `timeout` for something.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn sync(&self, since: Option<&str>, timeout: Duration) -> Result<SyncResponse, ClientError> {
        let mut query = vec![
            ("filter", FILTER.to_owned()),
            ("timeout", timeout.as_millis().to_string()),
            ("set_presence", "offline".to_owned()),
        ];
        if let Some(since) = since {
            query.push(("since", since.to_owned()));
        }
        self.call_within(
            Method::GET,
            "/_matrix/client/v3/sync",
            &query,
            None::<&Value>,
            Repeat::Never,
            timeout + Duration::from_secs(30),
        )
        .await
    }
}

//! The Megolm session with which a device speaks in one room.
//!
//! It lives in memory only: after a restart a new one is made, so no ratchet state is ever used twice.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use vodozemac::Curve25519PublicKey;
use vodozemac::megolm::GroupSession;

use super::device_keys::Device;

/// SPEC: `m.room.encryption`, default of `rotation_period_ms`: a week.
const DEFAULT_ROTATION_MS: u64 = 604_800_000;
/// SPEC: `m.room.encryption`, default of `rotation_period_msgs`.
const DEFAULT_ROTATION_MSGS: u64 = 100;

/// How a room wants to be encrypted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoomEncryption {
    /// A session is replaced after this time, in milliseconds.
    pub rotation_period_ms: u64,
    /// A session is replaced after this many messages.
    pub rotation_period_msgs: u64,
}

impl RoomEncryption {
    /// Reads the content of `m.room.encryption`; whatever it says, the room stays encrypted.
    #[must_use]
    pub fn from_content(content: &Value) -> Self {
        let number = |name: &str| content.get(name).and_then(Value::as_u64);
        Self {
            rotation_period_ms: number("rotation_period_ms").unwrap_or(DEFAULT_ROTATION_MS),
            rotation_period_msgs: number("rotation_period_msgs").unwrap_or(DEFAULT_ROTATION_MSGS).max(1),
        }
    }
}

/// One outbound session and who has its key.
pub(crate) struct Outbound {
    pub(crate) session: GroupSession,
    created_ms: u64,
    messages: u64,
    /// Identity keys by user and device.
    shared_with: BTreeMap<(String, String), Curve25519PublicKey>,
}

impl std::fmt::Debug for Outbound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outbound").field("messages", &self.messages).finish_non_exhaustive()
    }
}

impl Outbound {
    pub(crate) fn new(now_ms: u64) -> Self {
        Self {
            session: GroupSession::new(vodozemac::megolm::SessionConfig::version_1()),
            created_ms: now_ms,
            messages: 0,
            shared_with: BTreeMap::new(),
        }
    }

    /// True once the session is too old, has said enough, or is known to a device that is no recipient now.
    pub(crate) fn must_rotate(&self, encryption: &RoomEncryption, recipients: &[Device], now_ms: u64) -> bool {
        let age_ms = now_ms.checked_sub(self.created_ms);
        // A clock that went back tells nothing about age: rotate.
        age_ms.is_none_or(|age| age >= encryption.rotation_period_ms)
            || self.messages >= encryption.rotation_period_msgs
            || self.shared_with.iter().any(|((user, device), key)| {
                !recipients.iter().any(|recipient| {
                    recipient.user_id == *user && recipient.device_id == *device && recipient.curve25519 == *key
                })
            })
    }

    pub(crate) fn is_shared_with(&self, device: &Device) -> bool {
        let id = (device.user_id.clone(), device.device_id.clone());
        self.shared_with.get(&id) == Some(&device.curve25519)
    }

    pub(crate) fn mark_shared(&mut self, device: &Device) {
        let id = (device.user_id.clone(), device.device_id.clone());
        self.shared_with.insert(id, device.curve25519);
    }

    pub(crate) fn encrypt(&mut self, plaintext: &[u8]) -> String {
        self.messages += 1;
        self.session.encrypt(plaintext).to_base64()
    }
}

//! Incoming: sync changes, Olm messages, room keys, encrypted room events.

use serde::Deserialize;
use serde_json::Value;
use vodozemac::megolm::{InboundGroupSession, SessionConfig as MegolmConfig, SessionKey};
use vodozemac::olm::{OlmMessage, SessionConfig};
use vodozemac::{Curve25519PublicKey, Ed25519PublicKey};

use super::device_keys::Device;
use super::inbound::Opened;
use super::machine::{Machine, UNWEDGE_AGAIN_MS};
use super::{MEGOLM, OLM};
use crate::client::SyncResponse;

/// Most decrypted room keys that wait for their sender's device keys.
const MAX_WAITING: usize = 200;
/// Inbound keys are kept this long, in milliseconds: two weeks.
const KEEP_INBOUND_MS: u64 = 14 * 24 * 3600 * 1000;

/// An Olm plaintext whose envelope holds, and the identity key that it came with.
#[derive(Debug, Clone)]
pub(crate) struct Payload {
    pub(crate) sender: String,
    sender_key: String,
    inner: OlmPlaintext,
}

#[derive(Debug, Clone, Deserialize)]
struct OlmPlaintext {
    #[serde(rename = "type")]
    event_type: String,
    #[serde(default)]
    content: Value,
    sender: String,
    recipient: String,
    recipient_keys: Ed25519Field,
    keys: Ed25519Field,
    #[serde(default)]
    sender_device_keys: Option<Value>,
}

#[derive(Debug, Clone, Deserialize)]
struct Ed25519Field {
    ed25519: String,
}

#[derive(Deserialize)]
struct OlmEvent {
    sender: String,
    content: OlmContent,
}

#[derive(Deserialize)]
struct OlmContent {
    algorithm: String,
    sender_key: String,
    ciphertext: std::collections::BTreeMap<String, OlmMessage>,
}

#[derive(Deserialize)]
struct RoomKey {
    algorithm: String,
    room_id: String,
    session_id: String,
    session_key: String,
}

/// What a sync brought.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Received {
    /// Room keys that are new: events that could not be read may be readable now.
    pub new_room_keys: usize,
    /// To-device messages that were dropped.
    pub dropped: usize,
}

/// What became of an encrypted room event.
#[derive(Debug, Clone, PartialEq)]
pub enum Decrypted {
    /// It is this event.
    Event {
        /// Its type.
        event_type: String,
        /// Its content.
        content: Value,
        /// The device that sent its key.
        sender_device: String,
    },
    /// Its key has not arrived (yet).
    MissingKey,
    /// It is malformed, replayed, or pretends to another sender or room.
    Refused,
}

impl Machine {
    /// Takes the device's part of a sync: changed devices, to-device messages, key counts.
    pub fn receive_sync(&mut self, sync: &SyncResponse, now_ms: u64) -> Received {
        self.dirty.devices |= self.devices.mark_changed(&sync.device_lists.changed);
        self.dirty.devices |= self.devices.forget(&sync.device_lists.left);
        let mut received = Received::default();
        for event in &sync.to_device.events {
            if event.get("type").and_then(Value::as_str) != Some("m.room.encrypted") {
                continue;
            }
            match self.receive_olm(event, now_ms) {
                Some(new_key) => received.new_room_keys += usize::from(new_key),
                None => received.dropped += 1,
            }
        }
        let on_server = sync.device_one_time_keys_count.get("signed_curve25519").copied().unwrap_or_default();
        let needs_fallback = sync
            .device_unused_fallback_key_types
            .as_ref()
            .is_some_and(|types| !types.iter().any(|kind| kind == "signed_curve25519"));
        self.refill_keys(on_server, needs_fallback);
        self.dirty.inbound |= self.inbound.forget_before(now_ms.saturating_sub(KEEP_INBOUND_MS));
        received
    }

    /// `Some(true)` for a new room key, `Some(false)` for anything else that holds, `None` for what is dropped.
    fn receive_olm(&mut self, event: &Value, now_ms: u64) -> Option<bool> {
        let event = OlmEvent::deserialize(event).ok()?;
        if event.content.algorithm != OLM {
            return None;
        }
        let own_key = self.own.account.curve25519_key().to_base64();
        let message = event.content.ciphertext.get(&own_key)?;
        let sender_key = event.content.sender_key;
        let Some(plaintext) = self.decrypt_olm(&sender_key, message, now_ms) else {
            self.mark_wedged(&event.sender, &sender_key, now_ms);
            return None;
        };
        let inner: OlmPlaintext = serde_json::from_slice(&plaintext).ok()?;
        // SPEC: "Validation of incoming decrypted events", 1, 3 and 4; 2 and 5 need the device, below.
        let sound = inner.sender == event.sender
            && inner.recipient == self.own.user_id
            && inner.recipient_keys.ed25519 == self.own.account.ed25519_key().to_base64();
        if !sound {
            return None;
        }
        self.receive_payload(Payload { sender: event.sender, sender_key, inner }, now_ms)
    }

    fn decrypt_olm(&mut self, sender_key: &str, message: &OlmMessage, now_ms: u64) -> Option<Vec<u8>> {
        if let Some(plaintext) = self.olm.decrypt(sender_key, message, now_ms) {
            self.dirty.olm = true;
            return Some(plaintext);
        }
        let OlmMessage::PreKey(message) = message else {
            return None;
        };
        let identity = Curve25519PublicKey::from_base64(sender_key).ok()?;
        let made = self.own.account.create_inbound_session(SessionConfig::version_1(), identity, message).ok()?;
        self.olm.add(sender_key.to_owned(), made.session, now_ms);
        self.dirty.olm = true;
        self.dirty.account = true;
        Some(made.plaintext)
    }

    fn mark_wedged(&mut self, sender: &str, sender_key: &str, now_ms: u64) {
        let Some(device) = self.devices.find_by_curve25519(sender, sender_key) else {
            return;
        };
        let id = (device.user_id.clone(), device.device_id.clone());
        self.unwedged_ms.retain(|_, at| now_ms.saturating_sub(*at) < UNWEDGE_AGAIN_MS);
        if !self.unwedged_ms.contains_key(&id) {
            self.wedged.insert(id);
        }
    }

    fn receive_payload(&mut self, payload: Payload, now_ms: u64) -> Option<bool> {
        let device = match &payload.inner.sender_device_keys {
            Some(keys) => Device::verify_own_claim(&payload.sender, keys)
                .ok()
                .filter(|device| device.curve25519.to_base64() == payload.sender_key)?,
            None => match self.devices.find_by_curve25519(&payload.sender, &payload.sender_key) {
                Some(device) => device.clone(),
                None => {
                    if self.waiting.len() < MAX_WAITING {
                        self.waiting.push(payload);
                    }
                    return Some(false);
                }
            },
        };
        let claimed = Ed25519PublicKey::from_base64(&payload.inner.keys.ed25519).ok()?;
        if claimed != device.ed25519 {
            return None;
        }
        if payload.inner.event_type != "m.room_key" {
            return Some(false);
        }
        self.receive_room_key(&payload.inner.content, &device, now_ms)
    }

    fn receive_room_key(&mut self, content: &Value, device: &Device, now_ms: u64) -> Option<bool> {
        let key = RoomKey::deserialize(content).ok()?;
        if key.algorithm != MEGOLM {
            return None;
        }
        let session_key = SessionKey::from_base64(&key.session_key).ok()?;
        let session = InboundGroupSession::new(&session_key, MegolmConfig::version_1());
        if session.session_id() != key.session_id {
            return None;
        }
        let new = self.inbound.add(&key.room_id, session, &device.user_id, &device.device_id, now_ms);
        self.dirty.inbound |= new;
        Some(new)
    }

    /// Takes what waited for its sender's devices; what still has no known device is dropped.
    pub(super) fn retry_waiting(&mut self, now_ms: u64) -> bool {
        let mut any = false;
        for payload in std::mem::take(&mut self.waiting) {
            if self.devices.find_by_curve25519(&payload.sender, &payload.sender_key).is_some() {
                any |= self.receive_payload(payload, now_ms) == Some(true);
            }
        }
        any
    }

    /// Decrypts an `m.room.encrypted` event of a room.
    pub fn decrypt(&mut self, room_id: &str, event: &Value) -> Decrypted {
        #[derive(Deserialize)]
        struct Encrypted {
            event_id: String,
            sender: String,
            content: Content,
        }
        #[derive(Deserialize)]
        struct Content {
            algorithm: String,
            session_id: String,
            ciphertext: String,
        }
        #[derive(Deserialize)]
        struct Plaintext {
            #[serde(rename = "type")]
            event_type: String,
            content: Value,
            room_id: String,
        }
        let Ok(event) = Encrypted::deserialize(event) else {
            return Decrypted::Refused;
        };
        if event.content.algorithm != MEGOLM {
            return Decrypted::Refused;
        }
        let Some(inbound) = self.inbound.get_mut(room_id, &event.content.session_id) else {
            return Decrypted::MissingKey;
        };
        // The session is its sender's alone, whatever the event's deprecated fields say.
        if inbound.sender != event.sender {
            return Decrypted::Refused;
        }
        let Opened::Plaintext(plaintext) = inbound.open(&event.content.ciphertext, &event.event_id) else {
            return Decrypted::Refused;
        };
        let sender_device = inbound.sender_device.clone();
        self.dirty.inbound = true;
        match serde_json::from_slice::<Plaintext>(&plaintext) {
            Ok(inner) if inner.room_id == room_id => {
                Decrypted::Event { event_type: inner.event_type, content: inner.content, sender_device }
            }
            _ => Decrypted::Refused,
        }
    }
}

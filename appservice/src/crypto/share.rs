//! Outgoing: Olm payloads, room keys, encrypted room events.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::device_keys::Device;
use super::machine::{CryptoError, Machine};
use super::outbound::{Outbound, RoomEncryption};
use super::{MEGOLM, OLM};

/// Most devices in one to-device request.
const MAX_DEVICES_PER_REQUEST: usize = 100;

/// One `PUT /sendToDevice/m.room.encrypted/{txnId}`.
#[derive(Debug, Clone)]
pub struct ToDeviceRequest {
    /// Transaction id, unique for this device.
    pub txn_id: String,
    /// By user and device.
    pub messages: BTreeMap<String, BTreeMap<String, Value>>,
    /// The room whose key it carries; `None` for an `m.dummy`.
    pub room_id: Option<String>,
    devices: Vec<Device>,
}

impl ToDeviceRequest {
    /// The event type of every request.
    pub const EVENT_TYPE: &'static str = "m.room.encrypted";
}

impl Machine {
    /// The requests after which every device of `members` can read what we say next in the room.
    ///
    /// A new session starts when the room's rotation says so, or when a device that knew the old one is no
    /// member's device any more. Devices without an Olm session are left out and tried again next time.
    ///
    /// # Errors
    /// [`CryptoError::Signed`].
    pub fn share_room_key(
        &mut self,
        room_id: &str,
        members: &[String],
        encryption: &RoomEncryption,
        now_ms: u64,
    ) -> Result<Vec<ToDeviceRequest>, CryptoError> {
        let recipients: Vec<Device> = self
            .devices
            .devices_of(members)
            .filter(|device| device.user_id != self.own.user_id || device.device_id != self.own.device_id)
            .cloned()
            .collect();
        let outbound = self.outbound.entry(room_id.to_owned()).or_insert_with(|| Outbound::new(now_ms));
        if outbound.must_rotate(encryption, &recipients, now_ms) {
            *outbound = Outbound::new(now_ms);
        }
        let new: Vec<Device> = recipients.into_iter().filter(|device| !outbound.is_shared_with(device)).collect();
        if new.is_empty() {
            return Ok(Vec::new());
        }
        let content = json!({
            "algorithm": MEGOLM,
            "room_id": room_id,
            "session_id": outbound.session.session_id(),
            "session_key": outbound.session.session_key().to_base64(),
        });
        self.olm_requests("m.room_key", &content, new, Some(room_id), now_ms)
    }

    /// The devices that a sent request carried a room key to have it.
    pub fn mark_shared(&mut self, request: &ToDeviceRequest) {
        let outbound = request.room_id.as_ref().and_then(|room| self.outbound.get_mut(room));
        if let Some(outbound) = outbound {
            for device in &request.devices {
                outbound.mark_shared(device);
            }
        }
    }

    /// `m.dummy` messages to devices whose broken Olm session has been replaced.
    ///
    /// # Errors
    /// [`CryptoError::Signed`].
    pub fn dummies(&mut self, now_ms: u64) -> Result<Vec<ToDeviceRequest>, CryptoError> {
        let wedged = std::mem::take(&mut self.wedged);
        let users: Vec<String> = wedged.iter().map(|(user, _)| user.clone()).collect();
        let devices: Vec<Device> = self
            .devices
            .devices_of(&users)
            .filter(|device| wedged.contains(&(device.user_id.clone(), device.device_id.clone())))
            .cloned()
            .collect();
        if devices.is_empty() {
            return Ok(Vec::new());
        }
        for device in &devices {
            let id = (device.user_id.clone(), device.device_id.clone());
            self.unwedged_ms.insert(id, now_ms);
        }
        self.olm_requests("m.dummy", &json!({}), devices, None, now_ms)
    }

    fn olm_requests(
        &mut self,
        event_type: &str,
        content: &Value,
        devices: Vec<Device>,
        room_id: Option<&str>,
        now_ms: u64,
    ) -> Result<Vec<ToDeviceRequest>, CryptoError> {
        let own_keys = self.own.device_keys()?;
        let mut requests = Vec::new();
        for chunk in devices.chunks(MAX_DEVICES_PER_REQUEST) {
            let mut messages: BTreeMap<String, BTreeMap<String, Value>> = BTreeMap::new();
            let mut reached = Vec::new();
            for device in chunk {
                let Some(message) = self.olm_message(event_type, content, device, &own_keys) else {
                    tracing::debug!("a device has no Olm session and is left out");
                    continue;
                };
                let of_user = messages.entry(device.user_id.clone()).or_default();
                of_user.insert(device.device_id.clone(), message);
                reached.push(device.clone());
            }
            if !reached.is_empty() {
                self.requests += 1;
                requests.push(ToDeviceRequest {
                    txn_id: format!("{now_ms}.{}.{event_type}", self.requests),
                    messages,
                    room_id: room_id.map(str::to_owned),
                    devices: reached,
                });
            }
        }
        Ok(requests)
    }

    /// SPEC: "m.olm.v1.curve25519-aes-sha2", the plaintext and the event around it.
    fn olm_message(&mut self, event_type: &str, content: &Value, device: &Device, own_keys: &Value) -> Option<Value> {
        let identity = device.curve25519.to_base64();
        let session = self.olm.newest(&identity)?;
        let payload = json!({
            "type": event_type,
            "content": content,
            "sender": self.own.user_id,
            "recipient": device.user_id,
            "recipient_keys": {"ed25519": device.ed25519.to_base64()},
            "keys": {"ed25519": self.own.account.ed25519_key().to_base64()},
            "sender_device_keys": own_keys,
        });
        let message = session.encrypt(payload.to_string()).ok()?;
        self.dirty.olm = true;
        Some(json!({
            "algorithm": OLM,
            "sender_key": self.own.account.curve25519_key().to_base64(),
            "ciphertext": {identity: message},
        }))
    }

    /// The content of the `m.room.encrypted` event that carries this event.
    ///
    /// # Errors
    /// [`CryptoError::NoRoomKey`] before [`Machine::share_room_key`].
    pub fn encrypt(&mut self, room_id: &str, event_type: &str, content: &Value) -> Result<Value, CryptoError> {
        let outbound = self.outbound.get_mut(room_id).ok_or(CryptoError::NoRoomKey)?;
        let plaintext = json!({"type": event_type, "content": content, "room_id": room_id});
        let ciphertext = outbound.encrypt(plaintext.to_string().as_bytes());
        let mut encrypted = json!({
            "algorithm": MEGOLM,
            "sender_key": self.own.account.curve25519_key().to_base64(),
            "device_id": self.own.device_id,
            "session_id": outbound.session.session_id(),
            "ciphertext": ciphertext,
        });
        // SPEC: relations stay outside, the homeserver aggregates by them.
        if let (Some(relation), Some(fields)) = (content.get("m.relates_to"), encrypted.as_object_mut()) {
            fields.insert("m.relates_to".to_owned(), relation.clone());
        }
        Ok(encrypted)
    }
}

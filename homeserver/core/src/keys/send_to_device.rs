//! `PUT /sendToDevice` and the EDU `m.direct_to_device`.
//!
//! Spec: <https://spec.matrix.org/v1.19/client-server-api/#send-to-device-messaging>,
//! <https://spec.matrix.org/v1.19/server-server-api/#send-to-device-messaging>.

use std::collections::{BTreeMap, BTreeSet};

use matron_storage::{Batch, CommitError, Key, KeyRange, MAX_PAGE, Order, Table};
use rand::Rng as _;
use ruma::{DeviceId, OwnedDeviceId, OwnedServerName, OwnedUserId, ServerName, UserId};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{inbound::check_origin, inbox::ToDeviceEvent};
use crate::{
    Core, Error, Requester,
    house::{from_json, to_json},
};

/// How many messages one request or EDU may carry, wildcards counted as one.
const MAX_MESSAGES: usize = 20_000;

/// The size at which messages to one server are split into another EDU, bytes.
const MAX_EDU_BYTES: usize = 50_000;

/// The longest message id of an EDU, characters; the specification's bound is 32, a server's slip is forgiven.
const MAX_MESSAGE_ID_CHARS: usize = 255;

/// How long message ids are remembered, ms.
const MAX_TXN_AGE_MS: u64 = 7 * 24 * 60 * 60 * 1000;

/// User to device (or `*`) to content.
pub type Messages = BTreeMap<OwnedUserId, BTreeMap<OwnedDeviceId, Value>>;

#[derive(Debug, Deserialize)]
struct DirectToDevice {
    sender: OwnedUserId,
    #[serde(rename = "type")]
    kind: String,
    message_id: String,
    messages: Messages,
}

/// Devices whose inbox received something.
type Reached = BTreeSet<(OwnedUserId, OwnedDeviceId)>;

impl Core {
    /// Each device named receives the message once, however often the request is repeated; unknown devices receive nothing.
    ///
    /// # Errors
    /// `M_BAD_JSON`, `M_TOO_LARGE`, [`Error::Store`].
    pub async fn send_to_device(
        &self,
        requester: &Requester,
        kind: &str,
        txn_id: &str,
        messages: Messages,
    ) -> Result<(), Error> {
        check_messages(kind, &messages)?;
        let sender = &requester.user_id;
        let once = Key::new().text(sender).text("client").text(requester.transaction_owner()).text(kind).text(txn_id);
        let mut batch = Batch::new();
        self.write_once(&mut batch, once)?;
        let mut reached = Reached::new();
        let mut remote: BTreeMap<OwnedServerName, Messages> = BTreeMap::new();
        for (user, devices) in messages {
            if self.is_local_user(&user) {
                self.write_local(&mut batch, &mut reached, sender, kind, &user, &devices)?;
            } else {
                remote.entry(user.server_name().to_owned()).or_default().insert(user, devices);
            }
        }
        for (server, messages) in &remote {
            for part in split(messages) {
                let content = json!({ "sender": sender, "type": kind, "message_id": fresh_id(), "messages": part });
                self.queue_edu(&mut batch, server, "m.direct_to_device", &content)?;
            }
        }
        self.submit_messages(batch, reached).await?;
        remote.keys().for_each(|server| self.wake_outbox(server));
        Ok(())
    }

    /// The devices named in another server's EDU have the message, once.
    ///
    /// # Errors
    /// `M_BAD_JSON`, `M_FORBIDDEN` for a sender of another server, [`Error::Store`].
    pub async fn receive_direct_to_device(&self, origin: &ServerName, content: Value) -> Result<(), Error> {
        let edu: DirectToDevice =
            serde_json::from_value(content).map_err(|_| Error::bad_json("an m.direct_to_device has the wrong form"))?;
        check_origin(origin, &edu.sender)?;
        check_messages(&edu.kind, &edu.messages)?;
        if edu.message_id.chars().count() > MAX_MESSAGE_ID_CHARS {
            return Err(Error::bad_json("the message id is too long"));
        }
        let mut batch = Batch::new();
        self.write_once(&mut batch, Key::new().text(&edu.sender).text("server").text(&edu.message_id))?;
        let mut reached = Reached::new();
        for (user, devices) in &edu.messages {
            if self.is_local_user(user) {
                self.write_local(&mut batch, &mut reached, &edu.sender, &edu.kind, user, devices)?;
            }
        }
        self.submit_messages(batch, reached).await
    }

    /// A message of the server itself, or of a use case, to one local user's devices; `*` means all.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn send_to_local_device(
        &self,
        sender: &UserId,
        kind: &str,
        user: &UserId,
        device: &DeviceId,
        content: &Value,
    ) -> Result<(), Error> {
        let mut batch = Batch::new();
        let mut reached = Reached::new();
        let devices = BTreeMap::from([(device.to_owned(), content.clone())]);
        self.write_local(&mut batch, &mut reached, sender, kind, user, &devices)?;
        self.submit_messages(batch, reached).await
    }

    fn write_once(&self, batch: &mut Batch, key: Key) -> Result<(), Error> {
        batch.expect_absent(Table::ToDeviceTxn, key.clone());
        batch.put(Table::ToDeviceTxn, key, to_json(&self.now_ms())?);
        Ok(())
    }

    fn write_local(
        &self,
        batch: &mut Batch,
        reached: &mut Reached,
        sender: &UserId,
        kind: &str,
        user: &UserId,
        devices: &BTreeMap<OwnedDeviceId, Value>,
    ) -> Result<(), Error> {
        for (device, content) in devices {
            let event = ToDeviceEvent { sender, kind, content };
            if device.as_str() == "*" {
                for (id, _) in self.load_devices(user)? {
                    self.write_to_inbox(batch, user, &id, &event)?;
                    reached.insert((user.to_owned(), id));
                }
            } else if self.find_device(user, device)?.is_some() {
                self.write_to_inbox(batch, user, device, &event)?;
                reached.insert((user.to_owned(), device.clone()));
            }
        }
        Ok(())
    }

    async fn submit_messages(&self, batch: Batch, reached: Reached) -> Result<(), Error> {
        match self.store.submit(batch).await {
            Ok(_) => {}
            // Sent before: the client or the server repeats itself.
            Err(CommitError::Conflict(_)) => return Ok(()),
            Err(CommitError::Store(error)) => return Err(error.into()),
        }
        for (user, device) in &reached {
            self.notifier.wake_user(user);
            self.appservices_inbox(user, device);
            // Looking at an inbox costs a scan, and a bound need not be exact.
            if rand::rng().next_u32().is_multiple_of(64) {
                self.prune_inbox(user, device).await?;
            }
        }
        Ok(())
    }

    /// Rows past their age are gone: message ids, changes of device lists.
    pub(super) async fn prune_keys(&self) -> Result<(), Error> {
        self.prune_device_lists().await?;
        let limit_ms = self.now_ms().saturating_sub(MAX_TXN_AGE_MS);
        let mut range = KeyRange::all();
        loop {
            let page = self.store.scan(Table::ToDeviceTxn, &range, Order::Ascending, MAX_PAGE)?;
            let mut batch = Batch::new();
            for (key, bytes) in &page {
                if from_json::<u64>(Table::ToDeviceTxn, bytes)? < limit_ms {
                    batch.delete(Table::ToDeviceTxn, key.clone());
                }
            }
            if !batch.is_empty() {
                self.commit(batch).await?;
            }
            match page.last() {
                Some((last, _)) if page.len() == MAX_PAGE => range = range.after(last),
                _ => return Ok(()),
            }
        }
    }
}

fn check_messages(kind: &str, messages: &Messages) -> Result<(), Error> {
    if kind.len() > 255 {
        return Err(Error::invalid("the event type is too long"));
    }
    if messages.values().map(BTreeMap::len).sum::<usize>() > MAX_MESSAGES {
        return Err(Error::TooLarge(format!("at most {MAX_MESSAGES} messages in one request").into()));
    }
    if messages.values().flat_map(BTreeMap::values).any(|content| !content.is_object()) {
        return Err(Error::bad_json("a message is not an object"));
    }
    Ok(())
}

/// The messages in parts that make EDUs of a sensible size.
fn split(messages: &Messages) -> Vec<Map<String, Value>> {
    let mut parts = vec![Map::new()];
    let mut size = 0_usize;
    for (user, devices) in messages {
        for (device, content) in devices {
            let bytes = serde_json::to_string(content).map_or(0, |text| text.len()).saturating_add(300);
            if size > 0 && size.saturating_add(bytes) > MAX_EDU_BYTES {
                parts.push(Map::new());
                size = 0;
            }
            size = size.saturating_add(bytes);
            if let Some(part) = parts.last_mut() {
                let of_user = part.entry(user.as_str()).or_insert_with(|| Value::Object(Map::new()));
                if let Some(of_user) = of_user.as_object_mut() {
                    of_user.insert(device.to_string(), content.clone());
                }
            }
        }
    }
    parts.retain(|part| !part.is_empty());
    parts
}

/// 32 characters that nobody guesses or repeats.
fn fresh_id() -> String {
    let mut bytes = [0_u8; 16];
    rand::rng().fill_bytes(&mut bytes);
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

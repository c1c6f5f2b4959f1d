//! The bot's ears: takes what the homeserver pushes, joins what it should, answers what it is asked.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::command::{Command, EXPLAIN_WHAT, HELP};
use super::credential::Credentials;
use super::explain::ExplainSource;
use super::room::server_of;
use crate::client::Client;
use crate::clock::Clock;
use crate::crypto::Decrypted;
use crate::device::{Device, DeviceError, Outgoing, Secrecy};
use crate::http::{OwnIds, Transaction};

/// Older questions are not answered any more, in milliseconds.
const STALE_MS: u64 = 10 * 60 * 1000;
/// Encrypted events that wait for their keys.
const MAX_PENDING: usize = 200;
/// Event ids that are remembered, so that no question is answered twice.
const MAX_SEEN: usize = 4_096;

/// The governance bot.
#[derive(Debug)]
pub struct Bot {
    client: Client,
    device: Device,
    /// Every device of this application service: they learn of changed rooms.
    devices: Vec<Device>,
    ids: Arc<OwnIds>,
    credentials: Credentials,
    explain: Arc<dyn ExplainSource>,
    clock: Arc<dyn Clock>,
    pending: VecDeque<Pending>,
    seen: HashSet<String>,
    seen_order: VecDeque<String>,
}

#[derive(Debug)]
struct Pending {
    room_id: String,
    event: Value,
    since_ms: u64,
}

impl Bot {
    /// The bot that speaks by `device`; `devices` are all devices of this application service.
    #[must_use]
    pub fn new(
        client: Client,
        device: Device,
        devices: Vec<Device>,
        ids: Arc<OwnIds>,
        credentials: Credentials,
        explain: Arc<dyn ExplainSource>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            client,
            device,
            devices,
            ids,
            credentials,
            explain,
            clock,
            pending: VecDeque::new(),
            seen: HashSet::new(),
            seen_order: VecDeque::new(),
        }
    }

    /// Takes transactions until their sender is dropped.
    pub async fn run(mut self, mut transactions: mpsc::Receiver<Transaction>) {
        let mut new_keys = self.device.new_keys();
        loop {
            tokio::select! {
                transaction = transactions.recv() => match transaction {
                    Some(transaction) => {
                        for event in transaction.events {
                            self.hear(event).await;
                        }
                    }
                    None => return,
                },
                changed = new_keys.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.retry_pending().await;
                }
            }
        }
    }

    async fn hear(&mut self, event: Value) {
        let text = |name: &str| event.get(name).and_then(Value::as_str).map(str::to_owned);
        let (Some(event_type), Some(room_id), Some(sender)) = (text("type"), text("room_id"), text("sender")) else {
            return;
        };
        match event_type.as_str() {
            "m.room.member" => self.hear_membership(&room_id, &sender, &event).await,
            "m.room.encryption" | "m.room.history_visibility" => {
                for device in &self.devices {
                    let _stopping = device.room_changed(&room_id).await;
                }
            }
            "m.room.message" | "m.room.encrypted" if !self.ids.has_user(&sender) => {
                let sent_ms = event.get("origin_server_ts").and_then(Value::as_u64);
                let now_ms = self.clock.now_ms();
                if sent_ms.is_some_and(|sent| now_ms.saturating_sub(sent) > STALE_MS) {
                    return;
                }
                self.hear_message(&room_id, event).await;
            }
            _ => {}
        }
    }

    /// Our users accept invitations of the bot; the bot also accepts those of its own server's users.
    async fn hear_membership(&self, room_id: &str, sender: &str, event: &Value) {
        let invited = event.get("state_key").and_then(Value::as_str).unwrap_or_default();
        let membership = event.pointer("/content/membership").and_then(Value::as_str);
        if membership != Some("invite") || !self.ids.has_user(invited) {
            return;
        }
        let bot = self.device.user_id();
        let from_own_server = server_of(sender) == Some(self.client.server_name());
        if sender != bot && !(invited == bot && from_own_server) {
            return;
        }
        if let Err(error) = self.credentials.join(&self.client, invited, room_id).await {
            tracing::info!(room.id = room_id, %error, "an invitation could not be accepted");
        }
    }

    async fn hear_message(&mut self, room_id: &str, event: Value) {
        let Some(event_id) = event.get("event_id").and_then(Value::as_str).map(str::to_owned) else {
            return;
        };
        if event.get("type").and_then(Value::as_str) == Some("m.room.message") {
            let content = event.get("content").cloned().unwrap_or_default();
            return self.obey(room_id, &event_id, &content).await;
        }
        match self.device.decrypt(room_id, event.clone()).await {
            Ok(Decrypted::Event { event_type, content, .. }) if event_type == "m.room.message" => {
                self.obey(room_id, &event_id, &content).await;
            }
            Ok(Decrypted::MissingKey) => {
                if self.pending.len() >= MAX_PENDING {
                    self.pending.pop_front();
                }
                let since_ms = self.clock.now_ms();
                self.pending.push_back(Pending { room_id: room_id.to_owned(), event, since_ms });
            }
            Ok(Decrypted::Event { .. } | Decrypted::Refused) => {}
            Err(error) => tracing::debug!(%error, "a message was not read"),
        }
    }

    async fn retry_pending(&mut self) {
        let now_ms = self.clock.now_ms();
        for pending in std::mem::take(&mut self.pending) {
            if now_ms.saturating_sub(pending.since_ms) <= STALE_MS {
                let age = pending.since_ms;
                self.hear_message(&pending.room_id, pending.event).await;
                // What still waits keeps its age.
                if let Some(last) = self.pending.back_mut()
                    && last.since_ms >= now_ms
                {
                    last.since_ms = age;
                }
            }
        }
    }

    fn is_new(&mut self, event_id: &str) -> bool {
        if !self.seen.insert(event_id.to_owned()) {
            return false;
        }
        self.seen_order.push_back(event_id.to_owned());
        if self.seen_order.len() > MAX_SEEN
            && let Some(oldest) = self.seen_order.pop_front()
        {
            self.seen.remove(&oldest);
        }
        true
    }

    async fn obey(&mut self, room_id: &str, event_id: &str, content: &Value) {
        let said = content.get("msgtype").and_then(Value::as_str) == Some("m.text");
        let body = content.get("body").and_then(Value::as_str).unwrap_or_default();
        let Some(command) = Command::parse(body).filter(|_| said) else {
            return;
        };
        if !self.is_new(event_id) {
            return;
        }
        let answer = match &command {
            Command::Help => HELP.to_owned(),
            Command::ExplainWhat => EXPLAIN_WHAT.to_owned(),
            Command::Explain(id) => match self.explain.explain(id, room_id).await {
                Ok(explanation) => explanation,
                Err(error) => {
                    tracing::info!(decision.id = %id, %error, "a decision was not explained");
                    error.sentence().to_owned()
                }
            },
        };
        if let Err(error) = self.answer(room_id, event_id, answer).await {
            tracing::warn!(room.id = room_id, %error, "a question was not answered");
        }
    }

    async fn answer(&self, room_id: &str, event_id: &str, body: String) -> Result<String, DeviceError> {
        let content = json!({
            "msgtype": "m.notice",
            "body": body,
            "m.relates_to": {"m.in_reply_to": {"event_id": event_id}},
        });
        self.device
            .send(Outgoing {
                room_id: room_id.to_owned(),
                event_type: "m.room.message".to_owned(),
                content,
                // A question that is pushed again after a restart gets the answer it had.
                txn_id: format!("reply.{event_id}"),
                secrecy: Secrecy::AsRoom,
            })
            .await
    }
}

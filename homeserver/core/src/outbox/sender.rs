//! One transaction to one peer (Server-Server API, "Transactions").

use std::time::Duration;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use matron_storage::{Batch, Key, Order, Table};
use ruma::ServerName;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::queue::Row;
use crate::{
    Core, Error,
    house::{from_json, to_json},
    ports::{FederationRequest, http_method::Method},
};

const MAX_PDUS: usize = 50;
const MAX_EDUS: usize = 100;

/// The first wait after a failure, ms; doubled each time.
const FIRST_WAIT_MS: u64 = 1_000;
/// The longest wait, ms. Short beside the hours of others: a hospital's message waits no longer than its server is away.
const LONGEST_WAIT_MS: u64 = 15 * 60 * 1000;

/// How long a failing peer is left alone; kept over restarts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Backoff {
    /// Failures in a row.
    pub failures: u32,
    /// Not before, ms.
    pub until_ms: u64,
}

impl Backoff {
    /// One failure later.
    pub(super) fn after_failure(self, now_ms: u64) -> Self {
        let wait_ms = FIRST_WAIT_MS.saturating_mul(1 << self.failures.min(20)).min(LONGEST_WAIT_MS);
        // A fifth either way, so that peers that fell together do not come back together.
        let jitter_ms = wait_ms * u64::from(rand::random::<u8>()) / 640;
        Self {
            failures: self.failures.saturating_add(1),
            until_ms: now_ms.saturating_add(wait_ms.saturating_sub(wait_ms / 5)).saturating_add(jitter_ms),
        }
    }
}

impl Core {
    /// The front of the queue has been sent and taken off; `false` if there was nothing to send.
    ///
    /// # Errors
    /// [`Error::Peer`], [`Error::PeerAnswer`]: the queue is as it was. [`Error::Store`].
    pub(super) async fn send_front(&self, server: &ServerName) -> Result<bool, Error> {
        let prefix = Key::new().text(server).prefix();
        let rows = self.store.scan(Table::OutboxRow, &prefix, Order::Ascending, MAX_PDUS + MAX_EDUS)?;
        let mut pdus: Vec<Value> = Vec::new();
        let mut edus: Vec<Value> = Vec::new();
        let mut taken = Vec::new();
        let mut hash = Sha256::new();
        let now_ms = self.now_ms();
        for (key, value) in &rows {
            match from_json::<Row>(Table::OutboxRow, value)? {
                Row::Event { event_id } => {
                    if pdus.len() >= MAX_PDUS {
                        break;
                    }
                    // What has expired is not told any more: it would only have to die again there.
                    if let Some(event) = self.load_event(&event_id)?.filter(|event| !event.is_expired(now_ms)) {
                        let pdu = serde_json::from_str(event.pdu.json().get())
                            .map_err(|error| Error::internal(format!("a stored event is not JSON: {error}")))?;
                        pdus.push(pdu);
                    }
                }
                Row::Edu { edu_type, content } => {
                    if edus.len() >= MAX_EDUS {
                        break;
                    }
                    edus.push(json!({"edu_type": edu_type, "content": content}));
                }
            }
            hash.update(key);
            taken.push(key.clone());
        }
        if taken.is_empty() {
            return Ok(false);
        }
        if !(pdus.is_empty() && edus.is_empty()) {
            self.put_transaction(server, &transaction_id(hash), pdus, edus).await?;
        }
        self.take_off(server, taken).await?;
        Ok(true)
    }

    async fn put_transaction(
        &self,
        server: &ServerName,
        txn_id: &str,
        pdus: Vec<Value>,
        edus: Vec<Value>,
    ) -> Result<(), Error> {
        if !self.peer_allowed(server) {
            return Err(Error::Peer("policy keeps this server out".into()));
        }
        let mut body = json!({
            "origin": self.server_name,
            "origin_server_ts": self.now_ms(),
            "pdus": pdus,
        });
        if let (false, Value::Object(body)) = (edus.is_empty(), &mut body) {
            body.insert("edus".to_owned(), Value::Array(edus));
        }
        let request = FederationRequest {
            destination: server.to_owned(),
            method: Method::Put,
            path_and_query: format!("/_matrix/federation/v1/send/{txn_id}"),
            body: Some(body),
            signed: true,
            timeout: Duration::from_secs(60),
            max_bytes: 4 * 1024 * 1024,
        };
        let response = self.federation.request(request).await.map_err(crate::federation::peer_error)?;
        log_refusals(server, &response.body);
        Ok(())
    }

    async fn take_off(&self, server: &ServerName, keys: Vec<Vec<u8>>) -> Result<(), Error> {
        let mut batch = Batch::new();
        for key in keys {
            batch.delete(Table::OutboxRow, key);
        }
        if self.load_backoff(server)? != Backoff::default() {
            batch.delete(Table::OutboxState, Key::new().text(server));
        }
        if !batch.is_empty() {
            self.commit(batch).await?;
        }
        Ok(())
    }

    pub(super) fn load_backoff(&self, server: &ServerName) -> Result<Backoff, Error> {
        Ok(self.load(Table::OutboxState, &Key::new().text(server))?.unwrap_or_default())
    }

    pub(super) async fn keep_backoff(&self, server: &ServerName, backoff: &Backoff) -> Result<(), Error> {
        let mut batch = Batch::new();
        batch.put(Table::OutboxState, Key::new().text(server), to_json(backoff)?);
        self.commit(batch).await.map(drop)
    }
}

/// The id of a transaction: all digits and letters, the same for the same rows.
fn transaction_id(hash: Sha256) -> String {
    let digest = hash.finalize();
    URL_SAFE_NO_PAD.encode(digest.get(..18).unwrap_or_default())
}

/// What the peer refused of a transaction it took.
fn log_refusals(server: &ServerName, body: &[u8]) {
    #[derive(Deserialize)]
    struct Answer {
        #[serde(default)]
        pdus: std::collections::BTreeMap<String, Value>,
    }
    let Ok(answer) = serde_json::from_slice::<Answer>(body) else { return };
    for (event_id, result) in answer.pdus {
        if result.get("error").is_some() {
            tracing::info!(peer.name = %server, event.id = %event_id, "a peer refused an event");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_waits_longer_up_to_a_bound() {
        let mut backoff = Backoff::default();
        let mut before = 0;
        for round in 0..40 {
            backoff = backoff.after_failure(0);
            assert!(backoff.until_ms <= LONGEST_WAIT_MS + LONGEST_WAIT_MS / 4);
            if round < 5 {
                assert!(backoff.until_ms > before);
            }
            before = backoff.until_ms;
        }
        assert!(before >= LONGEST_WAIT_MS * 4 / 5);
    }
}

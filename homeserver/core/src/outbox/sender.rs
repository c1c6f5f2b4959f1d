//! One transaction to one peer (Server-Server API, "Transactions").

use std::{collections::BTreeMap, time::Duration};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use matron_storage::{Batch, CommitError, Table};
use ruma::ServerName;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::queue::Row;
use crate::{
    Core, Error,
    keys::at_rest::Opened,
    ports::{FederationRequest, http_method::Method},
};

pub(super) const MAX_PDUS: usize = 50;
pub(super) const MAX_EDUS: usize = 100;
/// As many rows as a transaction holds at most.
pub(super) const FRONT: usize = MAX_PDUS + MAX_EDUS;

/// Rows of the queue, as they lie there.
pub(super) type Rows = Vec<(Vec<u8>, Vec<u8>)>;

/// A transaction, put together.
#[derive(Debug, Default)]
struct Load {
    pdus: Vec<Value>,
    edus: Vec<Value>,
    /// The rows that it carries.
    taken: Vec<Vec<u8>>,
    /// Those that nobody can open any more, as they lie in the queue.
    lost: Rows,
}

impl Core {
    /// As many of the rows as a transaction holds, with receipts and what is told in passing, have been sent and taken off;
    /// `false` if there was nothing to send. What nobody can open any more is taken off as well.
    ///
    /// # Errors
    /// [`Error::Peer`], [`Error::PeerAnswer`]: what can be sent waits as it did. [`Error::Store`].
    pub(super) async fn send_rows(&self, server: &ServerName, rows: &Rows) -> Result<bool, Error> {
        let mut load = self.load_rows(rows)?;
        let has_lost = !load.lost.is_empty();
        self.drop_lost(std::mem::take(&mut load.lost)).await?;
        let receipts = self.waiting_receipts(server, MAX_EDUS.saturating_sub(load.edus.len()))?;
        let mut hash = Sha256::new();
        load.taken.iter().for_each(|key| hash.update(key));
        for (key, position) in &receipts.rows {
            hash.update(key);
            hash.update(position);
        }
        let durable = !(load.taken.is_empty() && receipts.rows.is_empty());
        load.edus.extend(receipts.edus);
        let passing = self.outbox.passing.lock().take(server, MAX_EDUS.saturating_sub(load.edus.len()));
        if !durable {
            if passing.is_empty() {
                return Ok(has_lost);
            }
            // Nothing of it is sent a second time: any id will do that was not used.
            hash.update(self.now_ms().to_be_bytes());
            hash.update(rand::random::<[u8; 16]>());
        }
        load.edus.extend(passing);
        let is_told = !(load.pdus.is_empty() && load.edus.is_empty());
        if is_told {
            self.put_transaction(server, &transaction_id(hash), load.pdus, load.edus).await?;
        }
        self.take_off(server, load.taken, is_told).await?;
        self.take_off_receipts(receipts.rows).await?;
        Ok(true)
    }

    /// What a transaction with these rows carries.
    fn load_rows(&self, rows: &Rows) -> Result<Load, Error> {
        let mut load = Load::default();
        let now_ms = self.now_ms();
        for (key, value) in rows {
            match self.read_outbox(key, value)? {
                Opened::Gone => continue,
                Opened::Lost(row) => {
                    load.lost.push((key.clone(), row));
                    continue;
                }
                Opened::Message(Row::Event { event_id }) => {
                    if load.pdus.len() >= MAX_PDUS {
                        break;
                    }
                    // What has expired is not told any more: it would only have to die again there.
                    if let Some(event) = self.load_event(&event_id)?.filter(|event| !event.is_expired(now_ms)) {
                        let pdu = serde_json::from_str(event.pdu.json().get())
                            .map_err(|error| Error::internal(format!("a stored event is not JSON: {error}")))?;
                        load.pdus.push(pdu);
                    }
                }
                Opened::Message(Row::Edu { edu_type, content }) => {
                    if load.edus.len() >= MAX_EDUS {
                        break;
                    }
                    load.edus.push(json!({"edu_type": edu_type, "content": content}));
                }
            }
            load.taken.push(key.clone());
        }
        Ok(load)
    }

    /// The rows are gone that are still as they were when nobody could open them. If one is not, all of them stay for the
    /// next look.
    async fn drop_lost(&self, lost: Rows) -> Result<(), Error> {
        if lost.is_empty() {
            return Ok(());
        }
        let mut batch = Batch::new();
        for (key, row) in lost {
            batch.expect_equals(Table::OutboxRow, key.clone(), row);
            batch.delete(Table::OutboxRow, key);
        }
        match self.store.submit(batch).await {
            Ok(_) | Err(CommitError::Conflict(_)) => Ok(()),
            Err(CommitError::Store(error)) => Err(error.into()),
        }
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
        self.note_refusals(server, &response.body);
        Ok(())
    }

    /// What the peer refused of a transaction it took is logged, and kept for operators.
    fn note_refusals(&self, server: &ServerName, body: &[u8]) {
        #[derive(Deserialize)]
        struct Answer {
            #[serde(default)]
            pdus: BTreeMap<String, Value>,
        }
        let Ok(answer) = serde_json::from_slice::<Answer>(body) else { return };
        for (event_id, result) in answer.pdus {
            if let Some(reason) = result.get("error") {
                tracing::info!(peer.name = %server, event.id = %event_id, "a peer refused an event");
                self.outbox.refused.note(server, self.now_ms(), reason.as_str().unwrap_or_default());
            }
        }
    }

    /// The rows are gone. Whoever was told nothing, because all of it had expired, has not shown that it lives.
    async fn take_off(&self, server: &ServerName, keys: Vec<Vec<u8>>, was_told: bool) -> Result<(), Error> {
        let mut batch = Batch::new();
        for key in keys {
            batch.delete(Table::OutboxRow, key);
        }
        if was_told {
            self.write_success(&mut batch, server)?;
        }
        if !batch.is_empty() {
            self.commit(batch).await?;
        }
        Ok(())
    }
}

/// The id of a transaction: all digits and letters, the same for the same rows.
fn transaction_id(hash: Sha256) -> String {
    let digest = hash.finalize();
    URL_SAFE_NO_PAD.encode(digest.get(..18).unwrap_or_default())
}

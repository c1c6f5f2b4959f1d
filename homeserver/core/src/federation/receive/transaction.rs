//! `PUT /_matrix/federation/v1/send/{txnId}` (Server-Server API, "Transactions").

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
};

use matron_storage::{Batch, Key, Order, Table};
use ruma::{OwnedRoomId, ServerName};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json, value::RawValue};

use crate::{
    Core, Error,
    house::{from_json, to_json},
};

/// Events in a transaction (Server-Server API).
const MAX_PDUS: usize = 50;
/// Ephemeral units in a transaction.
const MAX_EDUS: usize = 100;

/// How long an answer is kept, so that the same transaction gets it again, ms.
const ANSWER_KEPT_MS: u64 = 24 * 60 * 60 * 1000;
/// Old answers are looked for once in so many transactions.
const FORGET_EVERY: u64 = 64;
/// How many answers are looked at then.
const FORGET_PAGE: usize = 512;

/// A row of `inbox_txn`.
#[derive(Serialize, Deserialize)]
struct Answered {
    /// When it was answered, ms; 0 in rows of before this was noted.
    #[serde(default)]
    at_ms: u64,
    /// The answer, as it was given.
    pdus: Map<String, Value>,
}

/// What a peer sends.
#[derive(Debug, Deserialize)]
pub struct Transaction {
    /// The events.
    #[serde(default)]
    pub pdus: Vec<Box<RawValue>>,
    /// The ephemeral units. One that has another form is ignored alone.
    #[serde(default)]
    pub edus: Vec<Box<RawValue>>,
}

/// An ephemeral unit.
#[derive(Debug, Deserialize)]
struct Edu {
    /// What it is.
    edu_type: String,
    /// What it says.
    #[serde(default)]
    content: Value,
}

#[derive(Deserialize)]
struct Place {
    room_id: Option<OwnedRoomId>,
}

impl Core {
    /// Every event of the transaction is judged and every ephemeral unit told; the same transaction gives the same answer.
    ///
    /// # Errors
    /// [`Error::InvalidParam`] for more than 50 events or 100 units; [`Error::LimitExceeded`] for a peer that sends many at
    /// once; [`Error::Store`].
    pub async fn receive_transaction(
        self: &Arc<Self>,
        origin: &ServerName,
        txn_id: &str,
        transaction: Transaction,
    ) -> Result<Value, Error> {
        if transaction.pdus.len() > MAX_PDUS || transaction.edus.len() > MAX_EDUS {
            return Err(Error::invalid("a transaction has at most 50 events and 100 ephemeral units"));
        }
        self.heard_from_peer(origin);
        // SPEC: v1.19 Server-Server API, "Transactions": a server waits for the answer before it sends the next.
        let turn = self.inbound.transaction_turn(origin).ok_or(Error::LimitExceeded { retry_after_ms: 5_000 })?;
        let _turn = turn.lock().await;
        let key = Key::new().text(origin).text(txn_id);
        if let Some(answered) = self.load::<Answered>(Table::InboxTxn, &key)? {
            return Ok(json!({"pdus": answered.pdus}));
        }
        let mut by_room: BTreeMap<OwnedRoomId, Vec<Box<RawValue>>> = BTreeMap::new();
        for raw in transaction.pdus {
            // An event without a room has no id either: there is nothing to answer about it.
            let place: Option<Place> = serde_json::from_str(raw.get()).ok();
            if let Some(room) = place.and_then(|place| place.room_id) {
                by_room.entry(room).or_default().push(raw);
            }
        }
        let rooms = by_room.into_iter().map(|(room, pdus)| self.receive_in_room(origin, room, pdus));
        let mut results = Map::new();
        for result in futures_util::future::join_all(rooms).await {
            results.extend(result?);
        }
        for raw in transaction.edus {
            let Ok(edu) = serde_json::from_str::<Edu>(raw.get()) else {
                tracing::debug!(peer.name = %origin, "an ephemeral unit of another form is ignored");
                continue;
            };
            if let Err(error) = self.receive_edu(origin, &edu.edu_type, edu.content).await {
                tracing::debug!(peer.name = %origin, edu.kind = %edu.edu_type, %error, "an ephemeral unit is ignored");
            }
        }
        let mut batch = Batch::new();
        let answered = Answered { at_ms: self.now_ms(), pdus: results };
        batch.put(Table::InboxTxn, key, to_json(&answered)?);
        if self.inbound.taken.fetch_add(1, Ordering::Relaxed).is_multiple_of(FORGET_EVERY) {
            self.forget_answers(&mut batch, origin)?;
        }
        self.commit(batch).await?;
        Ok(json!({"pdus": answered.pdus}))
    }

    /// The batch takes away answers to this peer that are too old to be asked for again.
    fn forget_answers(&self, batch: &mut Batch, origin: &ServerName) -> Result<(), Error> {
        let limit_ms = self.now_ms().saturating_sub(ANSWER_KEPT_MS);
        // Ids are hashes: from anywhere in the row of keys on lies an equal share of the old ones.
        let mut range = Key::new().text(origin).prefix();
        let middle = Key::new().text(origin).text(char::from(rand::random_range(b'0'..=b'z')).to_string());
        if rand::random() {
            range.start = middle.into();
        } else {
            range.end = Some(middle.into());
        }
        for (key, value) in self.store.scan(Table::InboxTxn, &range, Order::Descending, FORGET_PAGE)? {
            if from_json::<Answered>(Table::InboxTxn, &value)?.at_ms < limit_ms {
                batch.delete(Table::InboxTxn, key);
            }
        }
        Ok(())
    }

    async fn receive_in_room(
        self: &Arc<Self>,
        origin: &ServerName,
        room: OwnedRoomId,
        pdus: Vec<Box<RawValue>>,
    ) -> Result<Map<String, Value>, Error> {
        let mut results = Map::new();
        for (event_id, received) in self.receive_run(origin, &room, pdus).await? {
            let result = match received {
                Ok(_) => json!({}),
                Err(error) => json!({"error": error.to_string()}),
            };
            results.insert(event_id.to_string(), result);
        }
        Ok(results)
    }

    /// The peer lives: what waits for it is sent now.
    pub(crate) fn heard_from_peer(&self, server: &ServerName) {
        self.federation.heard_from(server);
        self.peer_is_back(server);
    }
}

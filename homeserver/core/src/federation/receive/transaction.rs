//! `PUT /_matrix/federation/v1/send/{txnId}` (Server-Server API, "Transactions").

use std::{collections::BTreeMap, sync::Arc};

use matron_storage::{Batch, Key, Table};
use ruma::{OwnedRoomId, ServerName};
use serde::Deserialize;
use serde_json::{Map, Value, json, value::RawValue};

use crate::{Core, Error, house::to_json};

/// Events in a transaction (Server-Server API).
const MAX_PDUS: usize = 50;
/// Ephemeral units in a transaction.
const MAX_EDUS: usize = 100;

/// What a peer sends.
#[derive(Debug, Deserialize)]
pub struct Transaction {
    /// The events.
    #[serde(default)]
    pub pdus: Vec<Box<RawValue>>,
    /// The ephemeral units.
    #[serde(default)]
    pub edus: Vec<Edu>,
}

/// An ephemeral unit.
#[derive(Debug, Deserialize)]
pub struct Edu {
    /// What it is.
    pub edu_type: String,
    /// What it says.
    #[serde(default)]
    pub content: Value,
}

#[derive(Deserialize)]
struct Place {
    room_id: Option<OwnedRoomId>,
}

impl Core {
    /// Every event of the transaction is judged and every ephemeral unit told; the same transaction gives the same answer.
    ///
    /// # Errors
    /// [`Error::InvalidParam`] for more than 50 events or 100 units; [`Error::Store`].
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
        let key = Key::new().text(origin).text(txn_id);
        if let Some(answer) = self.load::<Value>(Table::InboxTxn, &key)? {
            return Ok(answer);
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
        for edu in transaction.edus {
            if let Err(error) = self.receive_edu(origin, &edu.edu_type, edu.content).await {
                tracing::debug!(peer.name = %origin, edu.kind = %edu.edu_type, %error, "an ephemeral unit is ignored");
            }
        }
        let answer = json!({"pdus": results});
        let mut batch = Batch::new();
        batch.put(Table::InboxTxn, key, to_json(&answer)?);
        self.commit(batch).await?;
        Ok(answer)
    }

    async fn receive_in_room(
        self: &Arc<Self>,
        origin: &ServerName,
        room: OwnedRoomId,
        pdus: Vec<Box<RawValue>>,
    ) -> Result<Map<String, Value>, Error> {
        let mut results = Map::new();
        for raw in pdus {
            match self.receive_pdu(origin, &room, &raw).await {
                Ok(Some((event_id, Ok(_)))) => {
                    results.insert(event_id.to_string(), json!({}));
                }
                Ok(Some((event_id, Err(error)))) => {
                    results.insert(event_id.to_string(), json!({"error": error.to_string()}));
                }
                Ok(None) => {}
                Err(error @ Error::Store(_)) => return Err(error),
                Err(error) => tracing::debug!(room.id = %room, peer.name = %origin, %error, "an event is dropped"),
            }
        }
        Ok(results)
    }

    /// The peer lives: what waits for it is sent now.
    pub(crate) fn heard_from_peer(&self, server: &ServerName) {
        self.federation.heard_from(server);
        self.peer_is_back(server);
    }
}

//! Read receipts: of each reader, room and thread only the last is worth sending, however long a peer was away.

use std::collections::BTreeMap;

use matron_storage::{Batch, CommitError, Key, KeyReader, Order, Slot, SlotForm, Table};
use ruma::{OwnedRoomId, OwnedUserId, RoomId, ServerName, UserId};
use serde_json::{Map, Value, json};

use crate::{Core, Error};

/// How many receipts one transaction tells.
const PER_TRANSACTION: usize = 200;

/// What a transaction tells of receipts.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// The units.
    pub edus: Vec<Value>,
    /// The rows, with the value that was told.
    pub rows: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Core {
    /// Adds to the batch that the destination must hear of the user's receipt, as it stands when it is sent.
    pub(crate) fn queue_receipt(
        &self,
        batch: &mut Batch,
        destination: &ServerName,
        room: &RoomId,
        user: &UserId,
        thread: Option<&str>,
    ) {
        if self.is_local(destination) || !self.settings.federation {
            return;
        }
        let key = Key::new().text(destination).text(room).text(user).text(thread.unwrap_or(""));
        let slot = Slot { offset: 0, index: batch.reserve_position(), form: SlotForm::Plain };
        batch.put_at(Table::OutboxReceipt, key, None, vec![0; 8], Some(slot));
    }

    /// The receipts that wait for the destination, in at most so many units.
    pub(super) fn waiting_receipts(&self, server: &ServerName, max_edus: usize) -> Result<Told, Error> {
        type Users = BTreeMap<OwnedRoomId, BTreeMap<OwnedUserId, Value>>;
        let mut told = Told::default();
        if max_edus == 0 {
            return Ok(told);
        }
        // A unit holds one receipt of each reader in a room: further threads go into further units.
        let mut units: Vec<Users> = Vec::new();
        let rows = self.store.scan(
            Table::OutboxReceipt,
            &Key::new().text(server).prefix(),
            Order::Ascending,
            PER_TRANSACTION,
        )?;
        for (key, position) in rows {
            let mut reader = KeyReader::new(&key);
            let parts = (reader.text(), reader.text(), reader.text(), reader.text());
            if let (_, Some(room), Some(user), Some(thread)) = parts
                && let (Ok(room), Ok(user)) = (OwnedRoomId::try_from(room), OwnedUserId::try_from(user))
                && let Some((event_id, ts)) = self.receipt_of(&room, &user, &thread)?
            {
                let mut data = json!({"ts": ts});
                if let (false, Some(data)) = (thread.is_empty(), data.as_object_mut()) {
                    data.insert("thread_id".to_owned(), thread.into());
                }
                let receipt = json!({"event_ids": [event_id], "data": data});
                let free = |unit: &&mut Users| unit.get(&room).is_none_or(|users| !users.contains_key(&user));
                if let Some(unit) = units.iter_mut().find(free) {
                    unit.entry(room).or_default().insert(user, receipt);
                } else if units.len() < max_edus {
                    units.push(Users::from([(room, BTreeMap::from([(user, receipt)]))]));
                } else {
                    break;
                }
            }
            told.rows.push((key, position));
        }
        told.edus = units
            .into_iter()
            .map(|unit| {
                let content: Map<String, Value> =
                    unit.into_iter().map(|(room, users)| (room.to_string(), json!({"m.read": users}))).collect();
                json!({"edu_type": "m.receipt", "content": content})
            })
            .collect();
        Ok(told)
    }

    /// The receipts were told: their rows go, except those that a newer receipt has taken over.
    pub(super) async fn take_off_receipts(&self, rows: Vec<(Vec<u8>, Vec<u8>)>) -> Result<(), Error> {
        let mut rows = rows;
        for _ in 0..3 {
            let mut batch = Batch::new();
            for (key, told) in &rows {
                if self.store.get(Table::OutboxReceipt, key)?.as_deref() == Some(told) {
                    batch.expect_equals(Table::OutboxReceipt, key.clone(), told.clone());
                    batch.delete(Table::OutboxReceipt, key.clone());
                }
            }
            if batch.is_empty() {
                return Ok(());
            }
            match self.store.submit(batch).await {
                Ok(_) => return Ok(()),
                Err(CommitError::Conflict(index)) => {
                    // That one is newer now and is told again; the others are told.
                    if index < rows.len() {
                        rows.remove(index);
                    }
                }
                Err(CommitError::Store(error)) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

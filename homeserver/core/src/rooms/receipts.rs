//! Read receipts and the read marker (Client-Server API, "Receipts", "Read and unread markers").

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use matron_storage::{Batch, Key, Slot, SlotForm, Table};
use ruma::{EventId, OwnedEventId, OwnedRoomId, OwnedServerName, OwnedUserId, RoomId, ServerName, UserId};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tracing::Instrument as _;

use super::Room;
use crate::{Core, Error, house::to_json};

/// A receipt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewReceipt {
    /// `m.read` or `m.read.private`.
    pub kind: String,
    /// The reader.
    pub user: OwnedUserId,
    /// Up to where.
    pub event_id: OwnedEventId,
    /// The thread, `main`, or `None` for all.
    pub thread: Option<String>,
    /// When, ms.
    pub ts: u64,
}

#[derive(Serialize, Deserialize)]
struct Row {
    event_id: OwnedEventId,
    ts: u64,
}

#[derive(Deserialize)]
struct InboundReceipt {
    event_ids: Vec<OwnedEventId>,
    data: InboundData,
}

#[derive(Deserialize)]
struct InboundData {
    #[serde(default)]
    ts: u64,
    thread_id: Option<String>,
}

/// Whether this names a thread: `main`, or the id of the event that began it. Receipts are read by every server of a room, so
/// they carry no other words.
fn is_thread(thread: &str) -> bool {
    let names_an_event =
        thread.len() <= 255 && thread.starts_with('$') && thread.bytes().all(|byte| byte.is_ascii_graphic());
    thread == "main" || names_an_event
}

impl Core {
    /// The user has read up to the event; other devices, members and servers learn of it as the kind allows.
    ///
    /// # Errors
    /// [`Error::InvalidParam`] for another kind of receipt; [`Error::Forbidden`] for anyone not in the room.
    pub async fn read_up_to(
        self: &Arc<Self>,
        user: &UserId,
        room_id: &RoomId,
        kind: &str,
        event_id: &EventId,
        thread: Option<&str>,
    ) -> Result<(), Error> {
        let room = self.find_room(room_id)?.ok_or_else(|| Error::forbidden("you are not in this room"))?;
        self.require_joined(&room, user)?;
        match kind {
            "m.fully_read" if thread.is_some() => {
                return Err(Error::invalid("the read marker is of the whole room, not of a thread"));
            }
            "m.fully_read" => {
                return self.set_fully_read(user, room_id, event_id).await;
            }
            "m.read" | "m.read.private" => {}
            _ => return Err(Error::invalid("this kind of receipt is not known")),
        }
        if !thread.is_none_or(is_thread) {
            return Err(Error::invalid("a thread is main or the id of an event"));
        }
        if let Some(thread) = thread
            && !self.is_in_thread(room_id, event_id, thread)?
        {
            return Err(Error::invalid("the event is not in this thread"));
        }
        let receipt = NewReceipt {
            kind: kind.to_owned(),
            user: user.to_owned(),
            event_id: event_id.to_owned(),
            thread: thread.map(ToOwned::to_owned),
            ts: self.now_ms(),
        };
        self.keep_receipts(&room, std::slice::from_ref(&receipt), true).await
    }

    /// Whether the event is in the thread; a root is in the main timeline and in its own thread. Of an event that is not
    /// here nobody knows, and a redaction may be counted to the thread of what it redacted.
    fn is_in_thread(&self, room: &RoomId, event_id: &EventId, thread: &str) -> Result<bool, Error> {
        let Some(event) = self.load_event(event_id)?.filter(|event| event.pdu.room_id() == room) else {
            return Ok(true);
        };
        if event.pdu.kind() == "m.room.redaction" {
            return Ok(true);
        }
        let root = self.thread_of(&event)?;
        Ok(root.as_ref().map_or("main", |root| root.as_str()) == thread || event_id.as_str() == thread)
    }

    async fn set_fully_read(self: &Arc<Self>, user: &UserId, room: &RoomId, event: &EventId) -> Result<(), Error> {
        let content = json!({"event_id": event}).to_string();
        self.write_account_data(user, Some(room), "m.fully_read", &content).await.map(drop)
    }

    /// The receipts are kept and told.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(crate) async fn keep_receipts(
        self: &Arc<Self>,
        room: &Arc<Room>,
        receipts: &[NewReceipt],
        federate: bool,
    ) -> Result<(), Error> {
        let mut batch = Batch::new();
        let mut told = Vec::new();
        for receipt in receipts {
            let thread = receipt.thread.as_deref().unwrap_or("");
            let key = Key::new().text(room.id()).text(&receipt.kind).text(&receipt.user).text(thread);
            if !self.moves_forward(&key, room.id(), receipt)? {
                continue;
            }
            let slot = Slot { offset: 0, index: batch.reserve_position(), form: SlotForm::Plain };
            let mut value = vec![0; 8];
            value.extend(to_json(&Row { event_id: receipt.event_id.clone(), ts: receipt.ts })?);
            batch.put_at(Table::RoomReceipt, key, None, value, Some(slot));
            told.push(receipt.clone());
        }
        if told.is_empty() {
            return Ok(());
        }
        let mut destinations = Vec::new();
        if federate {
            for receipt in told.iter().filter(|receipt| receipt.kind == "m.read") {
                for server in room.servers() {
                    self.queue_receipt(&mut batch, &server, room.id(), &receipt.user, receipt.thread.as_deref());
                    destinations.push(server);
                }
            }
        }
        // INVARIANT: this ends even if whoever waits for it goes away, as a client does that hangs up: the receipts will be on
        // the disk, and syncs that were not told of them would step over them.
        let telling = Arc::clone(self).write_receipts(Arc::clone(room), batch, told, destinations);
        let telling = tokio::spawn(telling.in_current_span());
        telling.await.map_err(|_| Error::internal("receipts ended badly"))?
    }

    async fn write_receipts(
        self: Arc<Self>,
        room: Arc<Room>,
        batch: Batch,
        told: Vec<NewReceipt>,
        destinations: Vec<OwnedServerName>,
    ) -> Result<(), Error> {
        let ours: BTreeSet<_> =
            told.iter().map(|receipt| receipt.user.clone()).filter(|user| self.is_local_user(user)).collect();
        let moving = self.push.begin_move(ours.clone(), room.id());
        let guard = self.rooms.changes.begin(room.id(), &[]);
        let committed = self.commit(batch).await?;
        drop(moving);
        guard.publish(committed.last());
        for user in &ours {
            self.tell_unread(user);
        }
        if self.appservices_want_ephemeral() {
            for receipt in told.iter().filter(|receipt| receipt.kind == "m.read") {
                let mut data = serde_json::json!({ "ts": receipt.ts });
                if let (Some(thread), Some(data)) = (&receipt.thread, data.as_object_mut()) {
                    data.insert("thread_id".to_owned(), thread.as_str().into());
                }
                let content = serde_json::json!({ &receipt.event_id: { "m.read": { &receipt.user: data } } });
                self.appservices_room_edu(room.id(), "m.receipt", &content)?;
            }
        }
        let joined = room.joined();
        self.notifier.wake_members(&joined);
        if self.settings.peeking {
            self.wake_onlookers(room.id());
        }
        for destination in destinations {
            self.wake_outbox(&destination);
        }
        Ok(())
    }

    /// Where the user's `m.read` in the thread stands (empty: unthreaded), and when it was sent, ms.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(crate) fn receipt_of(
        &self,
        room: &RoomId,
        user: &UserId,
        thread: &str,
    ) -> Result<Option<(OwnedEventId, u64)>, Error> {
        let key = Key::new().text(room).text("m.read").text(user).text(thread);
        let Some(bytes) = self.store.get(Table::RoomReceipt, key.as_bytes())? else { return Ok(None) };
        let row: Row = crate::house::from_json(Table::RoomReceipt, bytes.get(8..).unwrap_or_default())?;
        Ok(Some((row.event_id, row.ts)))
    }

    /// Whether the receipt is later than where the one of this key stands. A user of another server may have read what
    /// has yet to arrive here.
    fn moves_forward(&self, key: &Key, room: &RoomId, receipt: &NewReceipt) -> Result<bool, Error> {
        let event = &*receipt.event_id;
        let Some(bytes) = self.store.get(Table::RoomReceipt, key.as_bytes())? else { return Ok(true) };
        let Some(row) = bytes.get(8..) else { return Ok(true) };
        let before: Row = crate::house::from_json(Table::RoomReceipt, row)?;
        if before.event_id == event {
            return Ok(false);
        }
        let place = |id: &EventId| -> Result<Option<u64>, Error> {
            Ok(self.load_event(id)?.filter(|event| event.pdu.room_id() == room).map(|event| event.record.timeline))
        };
        Ok(match (place(&before.event_id)?, place(event)?) {
            (Some(before), Some(after)) => after > before,
            (Some(_), None) => !self.is_local_user(&receipt.user),
            (None, _) => true,
        })
    }

    /// The receipts that a peer tells of its users are kept.
    ///
    /// # Errors
    /// [`Error::BadJson`] for another shape; [`Error::Store`].
    pub(crate) async fn receive_receipts(self: &Arc<Self>, origin: &ServerName, content: Value) -> Result<(), Error> {
        type Rooms = BTreeMap<OwnedRoomId, BTreeMap<String, BTreeMap<OwnedUserId, InboundReceipt>>>;
        let rooms: Rooms =
            serde_json::from_value(content).map_err(|_| Error::bad_json("an m.receipt has the wrong form"))?;
        for (room_id, kinds) in rooms.into_iter().take(100) {
            let Some(room) = self.find_room(&room_id)?.filter(|room| room.has_server(&self.server_name)) else {
                continue;
            };
            // SPEC: v1.19 Server-Server API, "Server Access Control Lists": the receipts of this room are ignored, others are not.
            match self.check_server_acl(&room, origin) {
                Ok(()) => {}
                Err(Error::Forbidden(_)) => continue,
                Err(error) => return Err(error),
            }
            let joined = room.joined();
            let mut receipts = Vec::new();
            for (user, receipt) in kinds.into_iter().filter(|(kind, _)| kind == "m.read").flat_map(|(_, users)| users) {
                if user.server_name() != origin || !joined.contains(&user) {
                    continue;
                }
                let Some(event_id) = receipt.event_ids.last().cloned() else { continue };
                if !receipt.data.thread_id.as_deref().is_none_or(is_thread) {
                    continue;
                }
                receipts.push(NewReceipt {
                    kind: "m.read".to_owned(),
                    user,
                    event_id,
                    thread: receipt.data.thread_id,
                    ts: receipt.data.ts,
                });
            }
            self.keep_receipts(&room, &receipts, false).await?;
        }
        Ok(())
    }
}

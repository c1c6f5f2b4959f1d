//! Events that wait for a fact: judged again when facts arrive.

use std::sync::Arc;

use matron_storage::{Batch, KeyRange, KeyReader, Order, Table};
use ruma::{OwnedEventId, OwnedRoomId};

use super::remote::{HeldRow, RemoteVerdict, held_key};
use crate::{Core, Error, house::from_json, rooms::Status};

/// How many waiting events are looked at in one round.
const MAX_ROUND: usize = 5000;

/// A waiting event: depth first, so that what others build on is judged before them.
type Waiting = (OwnedRoomId, u64, OwnedEventId);

impl Core {
    /// Every event that waits has been judged by what is known now; what may be delivered is. How many left the queue.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn judge_held(self: &Arc<Self>) -> Result<usize, Error> {
        let mut waiting = self.waiting()?;
        waiting.sort_unstable();
        let mut settled = 0_usize;
        for (room_id, _, event_id) in waiting {
            if self.judge_one_held(&room_id, &event_id).await? {
                settled = settled.saturating_add(1);
            }
        }
        Ok(settled)
    }

    fn waiting(&self) -> Result<Vec<Waiting>, Error> {
        let rows = self.store.scan(Table::EventHeld, &KeyRange::all(), Order::Ascending, MAX_ROUND)?;
        let mut waiting = Vec::with_capacity(rows.len());
        for (key, value) in rows {
            let mut reader = KeyReader::new(&key);
            let room_id = reader.text().and_then(|id| OwnedRoomId::try_from(id).ok());
            let event_id = reader.text().and_then(|id| OwnedEventId::try_from(id).ok());
            let row: HeldRow = from_json(Table::EventHeld, &value)?;
            waiting.extend(room_id.zip(event_id).map(|(room_id, event_id)| (room_id, row.depth, event_id)));
        }
        Ok(waiting)
    }

    /// Whether the event waits no more.
    async fn judge_one_held(self: &Arc<Self>, room_id: &ruma::RoomId, event_id: &ruma::EventId) -> Result<bool, Error> {
        let turn = self.inbound.room_turn(room_id);
        let _turn = turn.lock().await;
        let event = self.load_event(event_id)?;
        let room = self.find_room(room_id)?.filter(|room| room.has_server(&self.server_name));
        let still_held = event.filter(|event| {
            event.record.status == Status::Held && !event.content_gone && !event.is_expired(self.now_ms())
        });
        let (Some(event), Some(room)) = (still_held, room) else {
            return self.forget_held(room_id, event_id).await;
        };
        let verdict = {
            let mut inner = room.lock();
            self.judge_remote(&room, &mut inner, &event.pdu)?.verdict()
        };
        if verdict == RemoteVerdict::Hold {
            return Ok(false);
        }
        let mut with = Batch::new();
        with.delete(Table::EventHeld, held_key(&event.pdu));
        self.forget_hidden(&mut with, room_id, event_id);
        match self.receive_held(&room, &event, with).await {
            Ok(status) => {
                tracing::info!(room.id = %room_id, event.id = %event_id, ?status, "an event that waited was judged");
                Ok(status != Status::Held)
            }
            Err(error @ Error::Store(_)) => Err(error),
            Err(error) => {
                tracing::warn!(room.id = %room_id, event.id = %event_id, %error, "an event that waits could not be judged");
                Ok(false)
            }
        }
    }

    async fn forget_held(&self, room_id: &ruma::RoomId, event_id: &ruma::EventId) -> Result<bool, Error> {
        let mut batch = Batch::new();
        batch.delete(Table::EventHeld, matron_storage::Key::new().text(room_id).text(event_id));
        self.commit(batch).await?;
        Ok(true)
    }
}

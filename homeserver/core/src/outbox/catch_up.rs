//! The order in which a peer that was away hears what it missed.
//!
//! The room that spoke last comes first, and every room has its turn with each transaction: nobody waits for the backlog
//! of another room. In a room the events keep the order of the queue, which is an order that the graph accepts, and each is
//! sent once: a peer need not ask for what lies between.

use std::collections::{HashMap, VecDeque};

use matron_storage::{Batch, Key, KeyRange, Order, Table};
use ruma::{OwnedRoomId, ServerName};

use super::{
    queue::Row,
    sender::{FRONT, MAX_EDUS, MAX_PDUS, Rows},
};
use crate::{Core, Error, house::from_json, keys::at_rest};

/// The longest queue of one destination, rows. What is older is left to the peer, which asks for what it misses.
const MAX_ROWS: usize = 100_000;
/// How many rows are planned at once.
const PLANNED: usize = 20_000;
/// How many rows are read at once.
const PAGE: usize = 1_000;

/// The keys of the rows that are left to be sent, in their order. The rows are read when it is their turn: what waits long
/// is sealed anew meanwhile.
#[derive(Debug, Default)]
pub(super) struct CatchUp {
    /// To-device messages and device lists: what makes the events readable.
    edus: VecDeque<Vec<u8>>,
    /// Rooms, the next one first.
    rooms: VecDeque<VecDeque<Vec<u8>>>,
}

impl CatchUp {
    /// Those of the next transaction.
    fn next_keys(&mut self) -> Vec<Vec<u8>> {
        let mut keys: Vec<_> = self.edus.drain(..self.edus.len().min(MAX_EDUS)).collect();
        let mut events = 0;
        while events < MAX_PDUS
            && let Some(mut room) = self.rooms.pop_front()
        {
            let count = room.len().min(MAX_PDUS - events);
            keys.extend(room.drain(..count));
            events += count;
            if !room.is_empty() {
                self.rooms.push_back(room);
            }
        }
        keys
    }
}

impl Core {
    /// What the destination missed, if that is more than a transaction holds.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(super) fn plan_catch_up(&self, server: &ServerName) -> Result<Option<CatchUp>, Error> {
        let prefix = Key::new().text(server).prefix();
        let mut range = prefix.clone();
        let mut plan = CatchUp::default();
        let mut places: HashMap<OwnedRoomId, (usize, VecDeque<_>)> = HashMap::new();
        let mut count = 0_usize;
        while count < PLANNED {
            let page = self.store.scan(Table::OutboxRow, &range, Order::Ascending, PAGE)?;
            let Some((last, _)) = page.last() else { break };
            range = prefix.clone().after(last);
            let full = page.len() >= PAGE;
            for (key, value) in page {
                count = count.saturating_add(1);
                if at_rest::is_sealed(&value) {
                    plan.edus.push_back(key);
                    continue;
                }
                match from_json::<Row>(Table::OutboxRow, &value)? {
                    Row::Edu { .. } => plan.edus.push_back(key),
                    Row::Event { event_id } => match self.load_event(&event_id)? {
                        Some(event) => {
                            let room = places.entry(event.pdu.room_id().to_owned()).or_default();
                            room.0 = count;
                            room.1.push_back(key);
                        }
                        // It is gone: the row goes with the first transaction.
                        None => plan.edus.push_back(key),
                    },
                }
            }
            if !full {
                break;
            }
        }
        if count <= FRONT {
            return Ok(None);
        }
        let mut rooms: Vec<_> = places.into_values().collect();
        rooms.sort_by_key(|(newest, _)| std::cmp::Reverse(*newest));
        plan.rooms = rooms.into_iter().map(|(_, rows)| rows).collect();
        Ok(Some(plan))
    }

    /// The rows of the plan's next transaction, as they lie in the queue now; `None` at its end.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(super) fn next_rows(&self, plan: &mut CatchUp) -> Result<Option<Rows>, Error> {
        let keys = plan.next_keys();
        if keys.is_empty() {
            return Ok(None);
        }
        let wanted: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
        let values = self.store.get_many(Table::OutboxRow, &wanted)?;
        Ok(Some(keys.into_iter().zip(values).filter_map(|(key, value)| Some((key, value?))).collect()))
    }

    /// The destination's queue is no longer than its bound: the oldest rows went.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(super) async fn trim_queue(&self, server: &ServerName) -> Result<(), Error> {
        let prefix = Key::new().text(server).prefix();
        let mut range = prefix.clone();
        let mut count = 0_usize;
        while count < MAX_ROWS {
            let page = self.store.scan(Table::OutboxRow, &range, Order::Descending, PAGE.min(MAX_ROWS - count))?;
            let Some((oldest, _)) = page.last() else { return Ok(()) };
            range = range.before(oldest);
            count = count.saturating_add(page.len());
        }
        if self.store.scan(Table::OutboxRow, &range, Order::Descending, 1)?.is_empty() {
            return Ok(());
        }
        tracing::warn!(peer.name = %server, kept = count, "a peer is away for too long: the oldest of its queue is dropped");
        let mut batch = Batch::new();
        batch.delete_range(Table::OutboxRow, KeyRange { start: prefix.start, end: range.end });
        self.commit(batch).await.map(drop)
    }

    /// How many rows wait for the destination, counted up to `limit`, and receipts with them.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(super) fn queue_length(&self, server: &ServerName, limit: usize) -> Result<usize, Error> {
        let prefix = Key::new().text(server).prefix();
        let mut count = 0;
        for table in [Table::OutboxRow, Table::OutboxReceipt] {
            let mut range = prefix.clone();
            while count < limit {
                let page = self.store.scan(table, &range, Order::Ascending, PAGE.min(limit - count))?;
                let Some((last, _)) = page.last() else { break };
                range = prefix.clone().after(last);
                count += page.len();
            }
        }
        Ok(count)
    }
}

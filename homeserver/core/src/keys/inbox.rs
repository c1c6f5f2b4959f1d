//! The inbox of each device: messages wait until the device's next sync acknowledges them.

use matron_storage::{Batch, Key, KeyRange, KeyReader, Mark, Order, SlotForm, StreamPos, Table};
use ruma::{DeviceId, UserId};
use serde::{Deserialize, Serialize};
use serde_json::{Value, value::RawValue};

use super::at_rest::{self, Opened};
use crate::{
    Core, Error,
    house::{from_json, to_json},
};

/// How many messages wait for one device; the oldest make way.
const MAX_WAITING: usize = 10_000;

/// How long a message waits, ms.
const MAX_AGE_MS: u64 = 90 * 24 * 60 * 60 * 1000;

/// How many rows of an inbox one pruning looks at.
const PRUNE_PAGE: usize = 1_000;

/// A message in an inbox as it lay before it was sealed ([`super::at_rest`]).
#[derive(Debug, Deserialize)]
struct Unsealed {
    at_ms: u64,
    event: Box<RawValue>,
}

/// When the message of such a row came, and what it says.
pub(super) fn read_unsealed(row: &[u8]) -> Result<(u64, Vec<u8>), Error> {
    let Unsealed { at_ms, event } = from_json(Table::ToDeviceInbox, row)?;
    Ok((at_ms, Box::<str>::from(event).into_string().into_bytes()))
}

/// Whether a message that came at `came_ms` has waited for too long.
pub(super) fn is_over(came_ms: u64, now_ms: u64) -> bool {
    came_ms < now_ms.saturating_sub(MAX_AGE_MS)
}

/// A message on its way into inboxes: what `/sync` will show.
#[derive(Debug, Serialize)]
pub(super) struct ToDeviceEvent<'a> {
    pub sender: &'a UserId,
    #[serde(rename = "type")]
    pub kind: &'a str,
    pub content: &'a Value,
}

/// A page of an inbox.
#[derive(Debug, Default)]
pub struct ToDevicePage {
    /// Whole events, oldest first.
    pub events: Vec<Box<RawValue>>,
    /// The position to acknowledge with: of the last event, or of the end asked for if that is all.
    pub next: StreamPos,
    /// Whether more wait behind this page.
    pub more: bool,
}

fn inbox(user: &UserId, device: &DeviceId) -> Key {
    Key::new().text(user).text(device)
}

impl Core {
    /// The batch puts the message into the device's inbox.
    pub(super) fn write_to_inbox(
        &self,
        batch: &mut Batch,
        user: &UserId,
        device: &DeviceId,
        event: &ToDeviceEvent<'_>,
    ) -> Result<(), Error> {
        let owner = inbox(user, device);
        let row = self.seal_message(Table::ToDeviceInbox, owner.as_bytes(), &to_json(event)?)?;
        let index = batch.reserve_position();
        let (key, slot) = owner.position(index, SlotForm::Plain);
        batch.put_at(Table::ToDeviceInbox, key, Some(slot), row, None);
        Ok(())
    }

    /// The event of a row that was read under this key, also if it was sealed anew since; `None` if it is gone, or nobody
    /// can open it.
    pub(super) fn read_inbox_row(&self, key: &[u8], row: &[u8]) -> Result<Option<Box<RawValue>>, Error> {
        if !at_rest::is_sealed(row) {
            return Ok(Some(from_json::<Unsealed>(Table::ToDeviceInbox, row)?.event));
        }
        match self.open_message(Table::ToDeviceInbox, key, row)? {
            Opened::Message(message) => from_json(Table::ToDeviceInbox, &message).map(Some),
            Opened::Gone | Opened::Lost(_) => Ok(None),
        }
    }

    /// The messages after `from`, up to `to`, that wait for the device; at most `limit`.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn to_device_since(
        &self,
        user: &UserId,
        device: &DeviceId,
        from: StreamPos,
        to: StreamPos,
        limit: usize,
    ) -> Result<ToDevicePage, Error> {
        if self.is_inbox_empty(user, device, from) {
            return Ok(ToDevicePage { next: to, ..ToDevicePage::default() });
        }
        let start = inbox(user, device).number(from.0.saturating_add(1));
        let end = inbox(user, device).number(to.0.saturating_add(1));
        let range = KeyRange::between(start, end);
        let mut rows = self.store.scan(Table::ToDeviceInbox, &range, Order::Ascending, limit.saturating_add(1))?;
        let more = rows.len() > limit;
        rows.truncate(limit);
        let mut page = ToDevicePage { events: Vec::with_capacity(rows.len()), next: to, more };
        for (key, bytes) in rows {
            if more {
                page.next = position_of(&key).unwrap_or(page.next);
            }
            page.events.extend(self.read_inbox_row(&key, &bytes)?);
        }
        Ok(page)
    }

    fn inbox_mark(&self, user: &UserId) -> Mark {
        self.store.mark(Table::ToDeviceInbox, Key::new().text(user).as_bytes())
    }

    /// Whether it is known without reading that nothing waits after `from`.
    fn is_inbox_empty(&self, user: &UserId, device: &DeviceId, from: StreamPos) -> bool {
        let mark = self.inbox_mark(user);
        mark.position <= from || self.keys.empty_inboxes.find(&(user.to_owned(), device.to_owned()), mark).is_some()
    }

    /// Messages up to and including `up_to` are gone, because the device has them. Costs nothing when there are none.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn to_device_acknowledge(&self, user: &UserId, device: &DeviceId, up_to: StreamPos) -> Result<(), Error> {
        let mark = self.inbox_mark(user);
        let owner = (user.to_owned(), device.to_owned());
        if self.keys.empty_inboxes.find(&owner, mark).is_some() {
            return Ok(());
        }
        let oldest = self.store.scan(Table::ToDeviceInbox, &inbox(user, device).prefix(), Order::Ascending, 1)?;
        let Some((oldest, _)) = oldest.first() else {
            self.keys.empty_inboxes.put(owner, mark, ());
            return Ok(());
        };
        let range = KeyRange::between(inbox(user, device), inbox(user, device).number(up_to.0.saturating_add(1)));
        if range.end.as_ref().is_some_and(|end| oldest >= end) {
            return Ok(());
        }
        let mut batch = Batch::new();
        batch.delete_range(Table::ToDeviceInbox, range);
        self.commit(batch).await?;
        Ok(())
    }

    /// The inbox is within its bounds: not too many messages, none too old.
    pub(super) async fn prune_inbox(&self, user: &UserId, device: &DeviceId) -> Result<(), Error> {
        let prefix = inbox(user, device);
        let range = prefix.prefix();
        let mut end = None;
        // The newest rows that may stay end where the page does; what is before goes.
        let page = self.store.scan(Table::ToDeviceInbox, &range, Order::Descending, MAX_WAITING)?;
        if page.len() == MAX_WAITING {
            end = page.last().map(|(key, _)| key.clone());
        }
        let now_ms = self.now_ms();
        for (key, bytes) in page.iter().rev().take(PRUNE_PAGE) {
            if !at_rest::came_ms(bytes).is_some_and(|came_ms| is_over(came_ms, now_ms)) {
                break;
            }
            let mut after = key.clone();
            after.push(0);
            end = Some(after);
        }
        let Some(end) = end else { return Ok(()) };
        let mut batch = Batch::new();
        batch.delete_range(Table::ToDeviceInbox, KeyRange::between(prefix, end.clone()));
        self.commit(batch).await?;
        Ok(())
    }
}

fn position_of(key: &[u8]) -> Option<StreamPos> {
    let mut reader = KeyReader::new(key);
    reader.text()?;
    reader.text()?;
    reader.number().map(StreamPos)
}

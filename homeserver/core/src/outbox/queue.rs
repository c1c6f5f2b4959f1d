//! Putting into the queue, in the batch of what is told.

use matron_storage::{Batch, Key, SlotForm, Table};
use ruma::{EventId, OwnedEventId, ServerName};
use serde::{Deserialize, Serialize};

use super::peer::Backoff;
use crate::{
    Core, Error,
    house::{from_json, to_json},
    keys::at_rest::{self, Opened},
};

/// A row of `outbox_row`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Row {
    /// An event, by id.
    Event {
        /// The event.
        event_id: OwnedEventId,
    },
    /// An ephemeral unit that must not be lost: to-device messages, device lists.
    Edu {
        /// Its type.
        edu_type: String,
        /// Its content.
        content: serde_json::Value,
    },
}

impl Row {
    /// Whether it is a message for single devices: those lie sealed.
    fn is_message(&self) -> bool {
        matches!(self, Self::Edu { edu_type, .. } if edu_type == "m.direct_to_device")
    }
}

/// Whether a row that is not sealed is a message for single devices.
///
/// # Errors
/// [`Error::Store`] for a row that is none.
pub(crate) fn unsealed_message(value: &[u8]) -> Result<bool, Error> {
    from_json::<Row>(Table::OutboxRow, value).map(|row| row.is_message())
}

impl Core {
    /// Adds to the batch that the destination must receive the event.
    ///
    /// # Errors
    /// [`Error::Internal`], never in practice.
    pub(crate) fn write_outbox_event(
        &self,
        batch: &mut Batch,
        destination: &ServerName,
        event_id: &EventId,
        position_index: u32,
    ) -> Result<(), Error> {
        self.write_outbox(batch, destination, &Row::Event { event_id: event_id.to_owned() }, position_index)
    }

    /// Adds to the batch that the destination must receive an ephemeral unit. After the commit, call [`Core::wake_outbox`].
    ///
    /// # Errors
    /// [`Error::Internal`], never in practice.
    pub fn queue_edu(
        &self,
        batch: &mut Batch,
        destination: &ServerName,
        edu_type: &str,
        content: &serde_json::Value,
    ) -> Result<(), Error> {
        if self.is_local(destination) || !self.settings.federation {
            return Ok(());
        }
        let index = batch.reserve_position();
        self.write_outbox(
            batch,
            destination,
            &Row::Edu { edu_type: edu_type.to_owned(), content: content.clone() },
            index,
        )
    }

    fn write_outbox(&self, batch: &mut Batch, destination: &ServerName, row: &Row, index: u32) -> Result<(), Error> {
        let owner = Key::new().text(destination);
        let mut value = to_json(row)?;
        if row.is_message() {
            value = self.seal_message(Table::OutboxRow, owner.as_bytes(), &value)?;
        }
        let (key, slot) = owner.position(index, SlotForm::Plain);
        batch.put_at(Table::OutboxRow, key, Some(slot), value, None);
        Ok(())
    }

    /// What a row of the queue holds that was read under this key, also if it was sealed anew since.
    ///
    /// # Errors
    /// [`Error::Store`], also for a row that is none; [`Error::Internal`] when the key ring cannot be read.
    pub(super) fn read_outbox(&self, key: &[u8], value: &[u8]) -> Result<Opened<Row>, Error> {
        if !at_rest::is_sealed(value) {
            return from_json(Table::OutboxRow, value).map(Opened::Message);
        }
        Ok(match self.open_message(Table::OutboxRow, key, value)? {
            Opened::Message(value) => Opened::Message(from_json(Table::OutboxRow, &value)?),
            Opened::Gone => Opened::Gone,
            Opened::Lost(row) => Opened::Lost(row),
        })
    }

    /// Something new is queued for the destination.
    pub fn wake_outbox(&self, destination: &ServerName) {
        self.outbox.schedule.lock().wake(destination);
        self.outbox.wake.notify_one();
    }

    /// The destination was heard from, or answered: what waits for it is sent now, before whatever waits for others that failed.
    ///
    /// Who can reach us but cannot be reached is tried once a second at most, and less often the longer that goes on.
    pub fn peer_is_back(&self, destination: &ServerName) {
        if self.outbox.schedule.lock().heard_from(destination, self.now_ms()) {
            self.outbox.wake.notify_one();
        }
    }

    /// What waits for the destination is sent now, as if it had never failed.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn retry_peer(&self, destination: &ServerName) -> Result<(), Error> {
        let before = self.load_backoff(destination)?;
        if before.failures > 0 {
            let fresh = Backoff { last_success_ms: before.last_success_ms, ..Backoff::default() };
            self.keep_backoff(destination, &fresh).await?;
        }
        self.federation.heard_from(destination);
        self.inbound.keys.ask_again(destination);
        self.outbox.schedule.lock().prefer(destination);
        self.outbox.wake.notify_one();
        Ok(())
    }
}

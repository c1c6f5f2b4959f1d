//! Reading events: from memory, or from the store with their content opened.

use std::sync::Arc;

use matron_room::Pdu;
use matron_storage::{Table, keyring::KeyRingError};
use ruma::EventId;

use super::record::{EventRef, Flag, Record, Status, StoredEvent};
use crate::{Core, Error, retention::outlives_words};

/// The event as it goes on when the life of its words is over.
fn without_words(event: &StoredEvent) -> Result<StoredEvent, Error> {
    let pdu = event
        .pdu
        .without_words()
        .map_err(|error| Error::internal(format!("an event has no redacted form: {error}")))?;
    Ok(StoredEvent { pdu, content_gone: true, record: event.record.clone(), unrelated: Flag::default() })
}

impl Core {
    /// The event with this id, whatever was judged of it; `None` if it is not known.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn load_event(&self, id: &EventId) -> Result<Option<EventRef>, Error> {
        let generation = self.rooms.generation();
        // INVARIANT: of an event that is on its way into the timeline, memory may still hold what it was before, an outlier or
        // held. A sync that saw its row and took it for that would step over it for good.
        let trusted = |event: &EventRef| event.record.status == Status::Accepted || self.rooms.under_way(id).is_none();
        if let Some(event) = self.rooms.cached_event(id).filter(trusted) {
            if event.content_gone || !event.record.has_ended(self.now_ms()) || !outlives_words(&event.pdu) {
                return Ok(Some(event));
            }
            let silent = Arc::new(without_words(&event)?);
            self.rooms.cache_event(generation, &silent);
            return Ok(Some(silent));
        }
        let Some(bytes) = self.store.get(Table::EventPdu, id.as_bytes())? else { return Ok(None) };
        let event = Arc::new(self.read_event(id, &bytes)?);
        self.rooms.cache_event(generation, &event);
        Ok(Some(event))
    }

    /// The events with these ids, in their order; unknown ones are left out.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn load_events<'a>(&self, ids: impl IntoIterator<Item = &'a EventId>) -> Result<Vec<EventRef>, Error> {
        let mut events = Vec::new();
        for id in ids {
            events.extend(self.load_event(id)?);
        }
        Ok(events)
    }

    /// The event with this id, if it is of this room; the one way in which a request may reach an event.
    ///
    /// # Errors
    /// [`Error::NotFound`] if it is not known or of another room.
    pub fn load_event_in(&self, room: &ruma::RoomId, id: &EventId) -> Result<EventRef, Error> {
        self.load_event(id)?
            .filter(|event| event.pdu.room_id() == room)
            .ok_or_else(|| Error::not_found("this event is not known"))
    }

    fn read_event(&self, id: &EventId, bytes: &[u8]) -> Result<StoredEvent, Error> {
        let (record, json) = Record::decode(bytes)?;
        let skeleton = || {
            Pdu::from_stored(json, record.version, id.to_owned())
                .map_err(|error| Error::Store(matron_storage::StoreError::Corrupt(format!("event_pdu: {error}"))))
        };
        if record.bucket == 0 {
            let content_gone = record.redacted_by.is_some();
            return Ok(StoredEvent { pdu: skeleton()?, content_gone, record, unrelated: Flag::default() });
        }
        let pdu = skeleton()?;
        if record.has_ended(self.now_ms()) && outlives_words(&pdu) {
            return Ok(StoredEvent { pdu, content_gone: true, record, unrelated: Flag::default() });
        }
        let Some(sealed) = self.store.get(Table::EventContent, id.as_bytes())? else {
            return Ok(StoredEvent { pdu, content_gone: true, record, unrelated: Flag::default() });
        };
        match self.keyring.open_sealed(pdu.room_id().as_str(), record.bucket, id.as_bytes(), &sealed) {
            Ok(plain) => {
                let json = std::str::from_utf8(&plain)
                    .map_err(|_| Error::Store(matron_storage::StoreError::Corrupt("event_content".to_owned())))?;
                let pdu = Pdu::from_stored(json, record.version, id.to_owned()).map_err(|error| {
                    Error::Store(matron_storage::StoreError::Corrupt(format!("event_content: {error}")))
                })?;
                Ok(StoredEvent { pdu, content_gone: false, record, unrelated: Flag::default() })
            }
            Err(KeyRingError::KeyDestroyed) => {
                Ok(StoredEvent { pdu, content_gone: true, record, unrelated: Flag::default() })
            }
            Err(error) => Err(Error::internal(format!("the content of an event cannot be opened: {error}"))),
        }
    }
}

//! A lifetime that is set or shortened holds for what is there already, too.
//!
//! The event that changes a room's lifetime leaves a mark in its own batch; the worker goes through the room's timeline
//! from its beginning, page by page, and gives each event the earlier end, sealed anew under a key that goes as early.

use matron_room::Pdu;
use matron_storage::{Batch, CommitError, Key, KeyRange, KeyReader, Order, Table};
use ruma::{EventId, OwnedEventId, OwnedRoomId, RoomId};

use crate::{
    Core, Error,
    house::to_json,
    rooms::{Record, Room},
};

/// How many events, or rooms, are looked at between two commits.
const PAGE: usize = 200;
/// How many pages one round looks at.
const MAX_PAGES: usize = 20;

/// The rooms whose lifetime changed: up to which timeline order they were gone through, then what changed it.
fn moved_key() -> Key {
    Key::new().text("retention").text("moved")
}

/// The longest life that the deployment's own layers allowed when it was looked last.
fn floor_key() -> Key {
    Key::new().text("retention").text("floor")
}

fn mark(gone_through_to: u64, by: &[u8]) -> Vec<u8> {
    let mut value = gone_through_to.to_be_bytes().to_vec();
    value.extend_from_slice(by);
    value
}

impl Core {
    /// Adds to the batch of an event that changes how long the room's content lives that what is there is to be judged anew.
    pub(crate) fn write_moved_lifetime(&self, batch: &mut Batch, pdu: &Pdu) {
        batch.put(Table::Misc, moved_key().text(pdu.room_id()), mark(0, pdu.event_id().as_bytes()));
    }

    /// Where the deployment's own layers let content live for less long than before, every room is to be gone through.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(super) async fn follow_floor(&self) -> Result<(), Error> {
        let now = self.rules().policies.floor.as_ref().and_then(|floor| floor.max_lifetime_ms);
        let then: Option<u64> = self.load::<Option<u64>>(Table::Misc, &floor_key())?.flatten();
        if now == then {
            return Ok(());
        }
        if now.is_some_and(|now| then.is_none_or(|then| now < then)) {
            let mut range = KeyRange::all();
            loop {
                let rows = self.store.scan(Table::RoomMeta, &range, Order::Ascending, PAGE)?;
                let Some((last, _)) = rows.last() else { break };
                range = range.after(last);
                let mut batch = Batch::new();
                for room in rows.iter().filter_map(|(key, _)| KeyReader::new(key).text()) {
                    batch.put(Table::Misc, moved_key().text(room.as_str()), mark(0, b"floor"));
                }
                self.commit(batch).await?;
            }
        }
        let mut batch = Batch::new();
        batch.put(Table::Misc, floor_key(), to_json(&now)?);
        self.commit(batch).await.map(drop)
    }

    /// What lies in rooms whose lifetime changed ends when it should now; `true` if there is more than one round takes.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(super) async fn shorten_lives(&self) -> Result<bool, Error> {
        let prefix = moved_key();
        for _ in 0..MAX_PAGES {
            let rows = self.store.scan(Table::Misc, &prefix.prefix(), Order::Ascending, 1)?;
            let Some((key, value)) = rows.into_iter().next() else { return Ok(false) };
            let room = KeyReader::new(key.get(prefix.as_bytes().len()..).unwrap_or_default()).text();
            let room = room.and_then(|room| OwnedRoomId::try_from(room).ok());
            self.shorten_page(room.as_deref(), key, value).await?;
        }
        Ok(true)
    }

    async fn shorten_page(&self, room: Option<&RoomId>, key: Vec<u8>, value: Vec<u8>) -> Result<(), Error> {
        let mut batch = Batch::new();
        // Another change of the lifetime writes the mark anew, and all begins again.
        batch.expect_equals(Table::Misc, key.clone(), value.clone());
        let (from, by) = value.split_first_chunk::<8>().map_or((0, &[][..]), |(at, by)| (u64::from_be_bytes(*at), by));
        let open = match room {
            Some(room) => self.find_room(room)?,
            None => None,
        };
        // Without an end now, nothing ends earlier than it did.
        let limited = match &open {
            Some(open) => self.room_lifetime_ms(&mut open.lock())?.is_some(),
            None => false,
        };
        let mut moved = Vec::new();
        let mut last = None;
        if let (Some(open), true) = (&open, limited) {
            let rows = self.timeline_rows(open.id(), from, u64::MAX, Order::Ascending, PAGE)?;
            last = rows.last().filter(|_| rows.len() == PAGE).map(|row| row.timeline);
            for row in rows {
                if self.shorten_one(&mut batch, open, &row.event_id)? {
                    moved.push(row.event_id);
                }
            }
        }
        match last {
            Some(last) => batch.put(Table::Misc, key, mark(last, by)),
            None => batch.delete(Table::Misc, key),
        };
        match self.store.submit(batch).await {
            Ok(_) => {}
            // Something changed meanwhile: the next look begins where this one did.
            Err(CommitError::Conflict(_)) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        self.follow_shortened(moved).await
    }

    /// Caches and files follow what was written.
    async fn follow_shortened(&self, moved: Vec<OwnedEventId>) -> Result<(), Error> {
        for id in &moved {
            self.rooms.forget_event(id);
        }
        for id in &moved {
            if let Some(event) = self.load_event(id)? {
                self.bind_files(&event).await;
                self.attach_media_of(&event).await;
            }
        }
        Ok(())
    }

    /// Adds to the batch that the event ends earlier, if it should; whether it does.
    fn shorten_one(&self, batch: &mut Batch, room: &Room, id: &EventId) -> Result<bool, Error> {
        let Some(bytes) = self.store.get(Table::EventPdu, id.as_bytes())? else { return Ok(false) };
        let (before, json) = Record::decode(&bytes)?;
        if before.bucket == 0 || before.redacted_by.is_some() {
            return Ok(false);
        }
        let Some(sealed) = self.store.get(Table::EventContent, id.as_bytes())? else { return Ok(false) };
        let Some(event) = self.load_event(id)?.filter(|event| !event.content_gone) else { return Ok(false) };
        let (bucket, expires_ms) = self.life_of(&mut room.lock(), &event.pdu, before.received_ms)?;
        if expires_ms == 0 || (before.expires_ms != 0 && before.expires_ms <= expires_ms) {
            return Ok(false);
        }
        let unsealed = |error| Error::internal(format!("content cannot be sealed anew: {error}"));
        let plain =
            self.keyring.open_sealed(room.id().as_str(), before.bucket, id.as_bytes(), &sealed).map_err(unsealed)?;
        let sealed = self.keyring.seal(room.id().as_str(), bucket, id.as_bytes(), &plain).map_err(unsealed)?;
        let after = Record { bucket, expires_ms, ..before.clone() };
        batch.put(Table::EventPdu, id.as_bytes(), after.encode(json));
        batch.put(Table::EventContent, id.as_bytes(), sealed);
        batch.delete(Table::EventExpiry, Key::new().number(before.expires_ms).text(id));
        self.write_expiry(batch, &event.pdu, &after);
        batch.expect_equals(Table::EventPdu, id.as_bytes(), bytes);
        Ok(true)
    }
}

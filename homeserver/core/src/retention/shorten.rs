//! A lifetime that is set or shortened holds for what is there already, too.
//!
//! The event that changes a room's lifetime leaves marks in its own batch; the worker goes through the room's timeline
//! from its beginning, page by page, and gives each event the earlier end, sealed anew under a key that goes as early. So it
//! does with what no timeline shows.

use matron_room::Pdu;
use matron_storage::{Batch, CommitError, Key, KeyRange, KeyReader, Order, Table};
use ruma::{EventId, OwnedEventId, OwnedRoomId, RoomId};

use super::life::session_of;
use crate::{
    Core, Error,
    house::to_json,
    rooms::{Record, Room, Status},
};

/// How many events, or rooms, are looked at between two commits.
const PAGE: usize = 200;
/// How many pages one round looks at.
const MAX_PAGES: usize = 20;

/// What of a room is gone through, each by a mark of its own.
#[derive(Clone, Copy, Debug)]
enum Part {
    /// What its timeline shows.
    Timeline,
    /// What no timeline shows: soft-failed, withheld and held events.
    Hidden,
}

impl Part {
    /// The marks of rooms whose lifetime changed.
    fn marks(self) -> Key {
        Key::new().text("retention").text(match self {
            Self::Timeline => "moved",
            Self::Hidden => "moved_hidden",
        })
    }
}

/// The events of a room that no timeline shows and whose content is kept.
fn hidden_events(room: &RoomId) -> Key {
    Key::new().text("hidden_event").text(room)
}

/// Marks of the room for both parts; what changed its lifetime tells one change from another.
fn put_marks(batch: &mut Batch, room: &str, by: &[u8]) {
    batch.put(Table::Misc, Part::Timeline.marks().text(room), timeline_mark(0, by));
    batch.put(Table::Misc, Part::Hidden.marks().text(room), hidden_mark("", by));
}

/// The longest life that the deployment's own layers allowed when it was looked last.
fn floor_key() -> Key {
    Key::new().text("retention").text("floor")
}

/// Up to which timeline order the room was gone through, and what changed its lifetime.
fn timeline_mark(gone_through_to: u64, by: &[u8]) -> Vec<u8> {
    Key::new().number(gone_through_to).raw(by).into()
}

/// Up to which event that no timeline shows, and what changed its lifetime.
fn hidden_mark(gone_through_to: &str, by: &[u8]) -> Vec<u8> {
    Key::new().text(gone_through_to).raw(by).into()
}

/// Events, and the mark behind them.
type Page = (Vec<OwnedEventId>, Option<Vec<u8>>);

impl Core {
    /// Adds to the batch of an event that changes how long the room's content lives that what is there is to be judged anew.
    pub(crate) fn write_moved_lifetime(&self, batch: &mut Batch, pdu: &Pdu) {
        put_marks(batch, pdu.room_id().as_str(), pdu.event_id().as_bytes());
    }

    /// Adds to the batch of an event that no timeline shows that its content is kept.
    pub(crate) fn write_hidden(&self, batch: &mut Batch, pdu: &Pdu, record: &Record) {
        if record.bucket != 0 {
            batch.put(Table::Misc, hidden_events(pdu.room_id()).text(pdu.event_id()), Vec::new());
        }
    }

    /// Adds to the batch that the event is shown now, or its content is gone.
    pub(crate) fn forget_hidden(&self, batch: &mut Batch, room: &RoomId, event: &EventId) {
        batch.delete(Table::Misc, hidden_events(room).text(event));
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
                    put_marks(&mut batch, &room, b"floor");
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
        for _ in 0..MAX_PAGES {
            let mut first = None;
            // INVARIANT: the timeline last, whose last event says when a session ends.
            for part in [Part::Hidden, Part::Timeline] {
                let marks = part.marks();
                let rows = self.store.scan(Table::Misc, &marks.prefix(), Order::Ascending, 1)?;
                first = first.or_else(|| rows.into_iter().next().map(|(key, value)| (part, marks, key, value)));
            }
            let Some((part, marks, key, value)) = first else { return Ok(false) };
            let room = KeyReader::new(key.get(marks.as_bytes().len()..).unwrap_or_default()).text();
            let room = room.and_then(|room| OwnedRoomId::try_from(room).ok());
            self.shorten_page(part, room.as_deref(), key, value).await?;
        }
        Ok(true)
    }

    async fn shorten_page(&self, part: Part, room: Option<&RoomId>, key: Vec<u8>, value: Vec<u8>) -> Result<(), Error> {
        let mut batch = Batch::new();
        // Another change of the lifetime writes the mark anew, and all begins again.
        batch.expect_equals(Table::Misc, key.clone(), value.clone());
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
        let mut next = None;
        if let (Some(open), true) = (&open, limited) {
            let ids;
            (ids, next) = match part {
                Part::Timeline => self.timeline_page(open.id(), &value)?,
                Part::Hidden => self.hidden_page(open.id(), &value)?,
            };
            for id in ids {
                if self.shorten_one(&mut batch, open, &id)? {
                    moved.push(id);
                }
            }
        }
        match next {
            Some(next) => batch.put(Table::Misc, key, next),
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

    /// The next events of the timeline, by the mark, and the mark behind them, if there are more.
    fn timeline_page(&self, room: &RoomId, mark: &[u8]) -> Result<Page, Error> {
        let mut reader = KeyReader::new(mark);
        let from = reader.number().unwrap_or_default();
        let rows = self.timeline_rows(room, from, u64::MAX, Order::Ascending, PAGE)?;
        let last = rows.last().filter(|_| rows.len() == PAGE).map(|row| row.timeline);
        let next = last.map(|last| timeline_mark(last, reader.rest()));
        Ok((rows.into_iter().map(|row| row.event_id).collect(), next))
    }

    /// The same of events that no timeline shows.
    fn hidden_page(&self, room: &RoomId, mark: &[u8]) -> Result<Page, Error> {
        let mut reader = KeyReader::new(mark);
        let from = reader.text().unwrap_or_default();
        let all = hidden_events(room);
        let range = all.prefix().after(all.clone().text(&from).as_bytes());
        let rows = self.store.scan(Table::Misc, &range, Order::Ascending, PAGE)?;
        let id = |key: &[u8]| KeyReader::new(key.get(all.as_bytes().len()..).unwrap_or_default()).text();
        let last = rows.last().filter(|_| rows.len() == PAGE).and_then(|(key, _)| id(key));
        let next = last.map(|last| hidden_mark(&last, reader.rest()));
        let ids = rows.iter().filter_map(|(key, _)| OwnedEventId::try_from(id(key)?).ok());
        Ok((ids.collect(), next))
    }

    /// Caches and files follow what was written.
    async fn follow_shortened(&self, moved: Vec<OwnedEventId>) -> Result<(), Error> {
        for id in &moved {
            self.rooms.forget_event(id);
        }
        for id in &moved {
            if let Some(event) = self.load_event(id)?.filter(|event| event.record.status == Status::Accepted) {
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
        let mut inner = room.lock();
        let (bucket, expires_ms) = self.life_of(&mut inner, &event.pdu, before.received_ms)?;
        if expires_ms == 0 || (before.expires_ms != 0 && before.expires_ms <= expires_ms) {
            // Of a session, the last event says when it ends: whatever came before this one and was written anew, does not.
            if before.expires_ms > self.now_ms() && session_of(&event.pdu).is_some() {
                self.write_expiry(batch, &mut inner, &event.pdu, &before)?;
            }
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
        self.write_expiry(batch, &mut inner, &event.pdu, &after)?;
        batch.expect_equals(Table::EventPdu, id.as_bytes(), bytes);
        Ok(true)
    }
}

//! What has reached its end: taken from the expiry index, and from then on due for redaction and purge.

use std::collections::{BTreeMap, BTreeSet};

use matron_storage::{Batch, Key, KeyRange, KeyReader, Order, Table};
use ruma::{OwnedEventId, OwnedRoomId};

use super::{due::DueRow, life::ExpiryRow, purge::Doomed};
use crate::{
    Core, Error,
    house::{from_json, to_json},
    rooms::Status,
};

/// How many events are taken from the index at once.
const PAGE: usize = 500;
/// How many pages one round takes.
const MAX_PAGES: usize = 20;

/// What a look at the expiry index found.
#[derive(Debug, Default)]
pub(super) struct Expired {
    /// Events whose content may go at once.
    pub(super) doomed: Vec<Doomed>,
    /// Whether more have expired than one round takes.
    pub(super) more: bool,
    /// How many have reached their end.
    pub(super) count: u64,
    /// Sessions of events that ended before their room's messages do, which end now.
    sessions: BTreeMap<OwnedRoomId, Vec<String>>,
}

impl Core {
    /// Everything that has expired is out of the index: due for redaction, or doomed at once.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(super) async fn take_expired(&self, now_ms: u64) -> Result<Expired, Error> {
        let range = KeyRange::between(Key::new(), Key::new().number(now_ms.saturating_add(1)));
        let mut expired = Expired { more: true, ..Expired::default() };
        for _ in 0..MAX_PAGES {
            let rows = self.store.scan(Table::EventExpiry, &range, Order::Ascending, PAGE)?;
            expired.more = rows.len() == PAGE;
            if rows.is_empty() {
                break;
            }
            let mut batch = Batch::new();
            let mut rooms = BTreeSet::new();
            for (key, value) in rows {
                let row: ExpiryRow = from_json(Table::EventExpiry, &value)?;
                let mut reader = KeyReader::new(&key);
                let expires_ms = reader.number().unwrap_or(now_ms);
                if let Some(event_id) = reader.text().and_then(|id| OwnedEventId::try_from(id).ok()) {
                    rooms.insert(row.room_id.clone());
                    self.take_one(&mut batch, &mut expired, row, event_id, expires_ms)?;
                }
                batch.delete(Table::EventExpiry, key);
            }
            // Before the rows go that say so.
            for (room_id, sessions) in std::mem::take(&mut expired.sessions) {
                self.end_sessions(&mut batch, &room_id, sessions, now_ms).await?;
            }
            self.commit(batch).await?;
            self.forget_counts(&rooms)?;
            if !expired.more {
                break;
            }
        }
        Ok(expired)
    }

    fn take_one(
        &self,
        batch: &mut Batch,
        expired: &mut Expired,
        row: ExpiryRow,
        event_id: OwnedEventId,
        expires_ms: u64,
    ) -> Result<(), Error> {
        let Some(event) = self.load_event(&event_id)? else { return Ok(()) };
        let redacted = event.record.redacted_by.is_some();
        if event.record.expires_ms > expires_ms && !redacted {
            // Judged again since: another row says when it dies.
            return Ok(());
        }
        // It ended before its room's messages do: what ends now is its session.
        let ended_before = event.record.expires_ms != 0 && event.record.expires_ms < expires_ms;
        if ended_before && event.content_gone {
            expired.sessions.entry(row.room_id).or_default().extend(row.session);
            return Ok(());
        }
        let expires_ms = if ended_before { event.record.expires_ms } else { expires_ms };
        expired.count = expired.count.saturating_add(u64::from(!ended_before));
        if let Some(target) = crate::rooms::append::relation_of(&event.pdu).and_then(|relation| relation.event_id) {
            let key = Key::new().text(&row.room_id).text(&target).number(event.record.timeline);
            batch.delete(Table::RoomRelation, key);
        }
        let due = DueRow { expires_ms, bucket: row.bucket, session: row.session };
        let at_once = redacted
            || event.content_gone
            || event.record.status != Status::Accepted
            || self.settings.retention.grace_ms == 0;
        // Noted in both cases: what is doomed in this round is found again by the next one if this one does not end.
        batch.put(Table::EventRedactionDue, DueRow::key(&row.room_id, &event_id), to_json(&due)?);
        if at_once {
            expired.doomed.push(Doomed { room_id: row.room_id, event_id, due });
        }
        Ok(())
    }

    /// Unread counts of these rooms are counted anew.
    fn forget_counts(&self, rooms: &BTreeSet<OwnedRoomId>) -> Result<(), Error> {
        for room_id in rooms {
            let Some(room) = self.find_room(room_id)? else { continue };
            for user in room.joined().iter().filter(|user| self.is_local_user(user)) {
                self.unread_changed(user, room_id);
            }
        }
        Ok(())
    }

    /// When the next event expires, ms since the epoch.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(super) fn next_expiry_ms(&self) -> Result<Option<u64>, Error> {
        let rows = self.store.scan(Table::EventExpiry, &KeyRange::all(), Order::Ascending, 1)?;
        Ok(rows.first().and_then(|(key, _)| KeyReader::new(key).number()))
    }
}

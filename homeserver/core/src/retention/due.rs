//! What has expired and waits for its redaction.

use matron_storage::{Key, KeyRange, KeyReader, Order, Table};
use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, UserId};
use serde::{Deserialize, Serialize};

use super::purge::Doomed;
use crate::{Core, Error, Requester, house::from_json};

/// How many rows are read at once.
const PAGE: usize = 500;
/// How many rows one round looks at.
const MAX_LOOKED_AT: usize = 20_000;
/// The most events that one answer names.
const MAX_DUE: usize = 1000;

/// A row of `event_redaction_due`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct DueRow {
    /// When the event expired, ms since the epoch.
    pub(super) expires_ms: u64,
    /// The bucket of its data key.
    pub(super) bucket: u64,
    /// The Megolm session that opens it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) session: Option<String>,
}

impl DueRow {
    pub(super) fn key(room_id: &RoomId, event_id: &ruma::EventId) -> Key {
        Key::new().text(room_id).text(event_id)
    }
}

/// An event whose lifetime is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DueEvent {
    /// Its room.
    pub room_id: OwnedRoomId,
    /// The event to redact.
    pub event_id: OwnedEventId,
}

/// What is due, and when the next will be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RetentionDue {
    /// Events to redact now.
    pub events: Vec<DueEvent>,
    /// When the next event expires, ms since the epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_due_ms: Option<u64>,
}

/// What one look at the waiting events found.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// Events whose content may go: redacted, or their grace is over.
    pub(super) doomed: Vec<Doomed>,
    /// Events that Matron redacts itself, because nobody did in time, and by whom.
    pub(super) to_redact: Vec<(Doomed, OwnedUserId)>,
    /// When the next of them comes to one of both, ms since the epoch.
    pub(super) next_ms: Option<u64>,
    /// Whether there are more than one round looks at.
    pub(super) more: bool,
}

impl Core {
    /// What the requester may redact because it has expired, at most `limit` events.
    ///
    /// # Errors
    /// [`Error::Forbidden`] for who is neither application service nor officer; [`Error::Store`].
    pub fn retention_due(&self, requester: &Requester, limit: usize) -> Result<RetentionDue, Error> {
        if requester.appservice.is_none() && !self.is_officer(requester) {
            return Err(Error::forbidden("only application services and officers are told what has expired"));
        }
        let limit = limit.min(MAX_DUE);
        let now_ms = self.now_ms();
        let mut due = RetentionDue { events: Vec::new(), next_due_ms: self.next_expiry_ms()? };
        self.add_fresh(&requester.user_id, now_ms, limit, &mut due)?;
        let mut range = KeyRange::all();
        let mut looked_at = 0_usize;
        while due.events.len() < limit && looked_at < MAX_LOOKED_AT {
            let rows = self.store.scan(Table::EventRedactionDue, &range, Order::Ascending, PAGE)?;
            let Some((last, _)) = rows.last() else { break };
            let mut next = range.clone().after(last);
            looked_at = looked_at.saturating_add(rows.len());
            for (key, _) in &rows {
                let Some((room_id, event_id)) = read_key(key) else { continue };
                if !self.may_redact_in(&requester.user_id, &room_id)? {
                    // The room's other rows are skipped too.
                    next = after_room(range.clone(), &room_id);
                    break;
                }
                let waits = self.load_event(&event_id)?.is_some_and(|event| event.record.redacted_by.is_none());
                if waits && due.events.len() < limit {
                    due.events.push(DueEvent { room_id, event_id });
                }
            }
            range = next;
        }
        Ok(due)
    }

    /// Adds what has expired since the worker looked last.
    fn add_fresh(&self, user: &UserId, now_ms: u64, limit: usize, due: &mut RetentionDue) -> Result<(), Error> {
        let range = KeyRange::between(Key::new(), Key::new().number(now_ms.saturating_add(1)));
        for (key, value) in self.store.scan(Table::EventExpiry, &range, Order::Ascending, limit)? {
            let row: super::life::ExpiryRow = from_json(Table::EventExpiry, &value)?;
            let mut reader = KeyReader::new(&key);
            reader.number();
            let Some(event_id) = reader.text().and_then(|id| OwnedEventId::try_from(id).ok()) else { continue };
            let waits = self.load_event(&event_id)?.is_some_and(|event| {
                event.record.redacted_by.is_none()
                    && !event.content_gone
                    && event.record.status == crate::rooms::Status::Accepted
            });
            if waits && self.may_redact_in(user, &row.room_id)? {
                due.events.push(DueEvent { room_id: row.room_id, event_id });
            }
        }
        let later = KeyRange { start: Key::new().number(now_ms.saturating_add(1)).into(), end: None };
        let next = self.store.scan(Table::EventExpiry, &later, Order::Ascending, 1)?;
        due.next_due_ms = next.first().and_then(|(key, _)| KeyReader::new(key).number());
        Ok(())
    }

    /// Whether the user has the power to redact anyone's messages in the room.
    pub(super) fn may_redact_in(&self, user: &UserId, room_id: &RoomId) -> Result<bool, Error> {
        let Some(room) = self.find_room(room_id)? else { return Ok(false) };
        let mut inner = room.lock();
        if !inner.joined.contains(user) {
            return Ok(false);
        }
        let levels = inner.power_levels(self)?;
        Ok(levels.user(user).reaches(levels.redact()) && levels.can_send(user, "m.room.redaction", false))
    }

    /// What waits for its redaction, sorted by what is to be done now.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(super) fn look_at_waiting(&self, now_ms: u64) -> Result<Waiting, Error> {
        let grace_ms = self.settings.retention.grace_ms;
        let patience_ms = super::redact::patience_ms(grace_ms);
        let mut waiting = Waiting::default();
        let mut range = KeyRange { start: std::mem::take(&mut *self.retention.cursor.lock()), end: None };
        let mut looked_at = 0_usize;
        while looked_at < MAX_LOOKED_AT {
            let rows = self.store.scan(Table::EventRedactionDue, &range, Order::Ascending, PAGE)?;
            let Some((last, _)) = rows.last() else { return Ok(waiting) };
            range = range.after(last);
            looked_at = looked_at.saturating_add(rows.len());
            for (key, value) in rows {
                let due: DueRow = from_json(Table::EventRedactionDue, &value)?;
                let Some((room_id, event_id)) = read_key(&key) else { continue };
                let doomed = Doomed { room_id, event_id, due };
                self.sort_waiting(doomed, now_ms, grace_ms, patience_ms, &mut waiting)?;
            }
        }
        *self.retention.cursor.lock() = range.start;
        waiting.more = true;
        Ok(waiting)
    }

    fn sort_waiting(
        &self,
        doomed: Doomed,
        now_ms: u64,
        grace_ms: u64,
        patience_ms: u64,
        waiting: &mut Waiting,
    ) -> Result<(), Error> {
        let purge_ms = doomed.due.expires_ms.saturating_add(grace_ms);
        let event = self.load_event(&doomed.event_id)?;
        let waits = event.filter(|event| {
            event.record.redacted_by.is_none()
                && !event.content_gone
                && event.record.status == crate::rooms::Status::Accepted
        });
        let Some(event) = waits.filter(|_| now_ms < purge_ms) else {
            waiting.doomed.push(doomed);
            return Ok(());
        };
        let redact_ms = doomed.due.expires_ms.saturating_add(patience_ms);
        let mut next_ms = purge_ms;
        if now_ms < redact_ms {
            next_ms = redact_ms;
        } else if let Some(redactor) = self.find_redactor(&doomed.room_id, event.pdu.sender())? {
            waiting.to_redact.push((doomed, redactor));
        }
        waiting.next_ms = Some(waiting.next_ms.map_or(next_ms, |known| known.min(next_ms)));
        Ok(())
    }
}

fn read_key(key: &[u8]) -> Option<(OwnedRoomId, OwnedEventId)> {
    let mut reader = KeyReader::new(key);
    let room_id = OwnedRoomId::try_from(reader.text()?).ok()?;
    Some((room_id, OwnedEventId::try_from(reader.text()?).ok()?))
}

/// The part of the range behind all rows of the room.
fn after_room(range: KeyRange, room_id: &RoomId) -> KeyRange {
    let behind = Key::new().text(room_id).prefix().end.unwrap_or_default();
    KeyRange { start: behind.max(range.start), end: range.end }
}

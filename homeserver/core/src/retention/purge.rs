//! The death of content: its rows are gone, and the log says so.

use std::collections::BTreeMap;

use matron_policy::AuditKind;
use matron_storage::{Batch, Key, Table};
use ruma::{OwnedEventId, OwnedRoomId, RoomId};

use super::{due::DueRow, life::session_key};
use crate::{Core, Error};

/// How many events one batch lets die.
const MAX_BATCH: usize = 500;

/// An event whose content goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Doomed {
    pub(super) room_id: OwnedRoomId,
    pub(super) event_id: OwnedEventId,
    pub(super) due: DueRow,
}

/// What one round let die.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Purged {
    pub(super) events: u64,
    pub(super) media: u64,
}

impl Core {
    /// Nothing is left of the content of these events but what a destroyed key cannot open.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(super) async fn purge_all(&self, doomed: Vec<Doomed>, now_ms: u64) -> Result<Purged, Error> {
        let mut by_room: BTreeMap<OwnedRoomId, Vec<Doomed>> = BTreeMap::new();
        for one in doomed {
            by_room.entry(one.room_id.clone()).or_default().push(one);
        }
        let mut purged = Purged::default();
        for (room_id, events) in by_room {
            for part in events.chunks(MAX_BATCH) {
                let done = self.purge_room(&room_id, part, now_ms).await?;
                purged.events = purged.events.saturating_add(done.events);
                purged.media = purged.media.saturating_add(done.media);
            }
        }
        Ok(purged)
    }

    /// The content of these events of a room is gone before its time: an operator wants it. Each comes with the bucket
    /// of its data key.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(crate) async fn purge_content(&self, room_id: &RoomId, events: Vec<(OwnedEventId, u64)>) -> Result<(), Error> {
        if events.is_empty() {
            return Ok(());
        }
        let now_ms = self.now_ms();
        let doom = |(event_id, bucket)| Doomed {
            room_id: room_id.to_owned(),
            event_id,
            due: DueRow { expires_ms: now_ms, bucket, session: None },
        };
        self.purge_all(events.into_iter().map(doom).collect(), now_ms).await.map(drop)
    }

    async fn purge_room(&self, room_id: &RoomId, doomed: &[Doomed], now_ms: u64) -> Result<Purged, Error> {
        let mut media = 0_u64;
        let mut sessions = Vec::new();
        let mut batch = Batch::new();
        for one in doomed {
            media = media.saturating_add(u64::try_from(self.purge_media_of_event(&one.event_id).await?).unwrap_or(0));
            batch.delete(Table::EventContent, one.event_id.as_bytes());
            batch.delete_range(Table::RoomRelation, Key::new().text(room_id).text(&one.event_id).prefix());
            batch.delete(Table::EventRedactionDue, DueRow::key(room_id, &one.event_id));
            self.forget_hidden(&mut batch, room_id, &one.event_id);
            sessions.extend(one.due.session.clone());
        }
        self.end_sessions(&mut batch, room_id, sessions, now_ms).await?;
        let up_to_ms = doomed.iter().map(|one| one.due.expires_ms).max().unwrap_or_default();
        let destroyed = self.destroy_ended_keys(room_id, doomed, now_ms)?;
        let events = u64::try_from(doomed.len()).unwrap_or(u64::MAX);
        let entry = AuditKind::Deletion {
            room_id: room_id.as_str().to_owned(),
            events,
            media,
            up_to_ms,
            key_destroyed: destroyed,
        };
        self.commit_audited(&batch, vec![self.audit_act(entry)]).await?;
        for one in doomed {
            self.rooms.forget_event(&one.event_id);
        }
        tracing::info!(room.id = %room_id, events, media, key.destroyed = destroyed, "expired content is purged");
        Ok(Purged { events, media })
    }

    /// Those of the sessions that open nothing any more are in no backup; the batch forgets when they end.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(super) async fn end_sessions(
        &self,
        batch: &mut Batch,
        room_id: &RoomId,
        sessions: Vec<String>,
        now_ms: u64,
    ) -> Result<(), Error> {
        let ended = self.ended_sessions(room_id, sessions, now_ms)?;
        if ended.is_empty() {
            return Ok(());
        }
        self.shred_backup_sessions(room_id, &ended).await?;
        for session in &ended {
            batch.delete(Table::Misc, session_key(room_id, session));
        }
        Ok(())
    }

    /// Those of the sessions that open nothing any more.
    fn ended_sessions(&self, room_id: &RoomId, mut sessions: Vec<String>, now_ms: u64) -> Result<Vec<String>, Error> {
        sessions.sort_unstable();
        sessions.dedup();
        let mut ended = Vec::new();
        for session in sessions {
            let row = self.store.get(Table::Misc, session_key(room_id, &session).as_bytes())?;
            let until_ms = row.as_deref().and_then(|bytes| bytes.first_chunk::<8>().copied()).map(u64::from_be_bytes);
            if until_ms.is_none_or(|until_ms| until_ms <= now_ms) {
                ended.push(session);
            }
        }
        Ok(ended)
    }
}

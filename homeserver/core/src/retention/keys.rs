//! Data keys die with the last content that they open.

use std::collections::BTreeSet;

use matron_policy::AuditKind;
use matron_storage::{Batch, Key, Order, Table};
use ruma::{OwnedRoomId, RoomId};

use super::{
    due::DueRow,
    life::{DAY_MS, WITHOUT_END},
    purge::Doomed,
};
use crate::{Core, Error, house::from_json};

/// How many waiting events of one room are looked at for the buckets that they need; beyond, keys wait.
const MAX_LOOKED_AT: usize = 2000;

impl Core {
    /// The keys of buckets of the room that have ended and open nothing but these events are destroyed. Whether any was.
    ///
    /// # Errors
    /// [`Error::Store`]; [`Error::Internal`] when the key ring cannot be written.
    pub(super) fn destroy_ended_keys(&self, room_id: &RoomId, doomed: &[Doomed], now_ms: u64) -> Result<bool, Error> {
        let ended: Vec<u64> = self
            .keyring
            .buckets(room_id.as_str())
            .into_iter()
            .filter(|bucket| *bucket < WITHOUT_END && *bucket <= now_ms)
            .collect();
        if ended.is_empty() {
            return Ok(false);
        }
        let Some(needed) = self.needed_buckets(room_id, doomed)? else { return Ok(false) };
        let dead: Vec<(&str, u64)> = ended
            .into_iter()
            .filter(|bucket| !needed.contains(bucket))
            .map(|bucket| (room_id.as_str(), bucket))
            .collect();
        let destroyed = self
            .keyring
            .destroy_many(&dead)
            .map_err(|error| Error::internal(format!("data keys could not be destroyed: {error}")))?;
        Ok(destroyed > 0)
    }

    /// The keys of a room's past days are destroyed: nothing that they open is left. Today's may be needed again.
    ///
    /// # Errors
    /// [`Error::Internal`] when the key ring cannot be written.
    pub(crate) fn destroy_past_keys(&self, room_id: &RoomId) -> Result<(), Error> {
        let (now_ms, today) = (self.now_ms(), WITHOUT_END | (self.now_ms() / DAY_MS));
        let past = |bucket: &u64| if *bucket < WITHOUT_END { *bucket <= now_ms } else { *bucket < today };
        let buckets = self.keyring.buckets(room_id.as_str());
        let dead: Vec<(&str, u64)> =
            buckets.into_iter().filter(past).map(|bucket| (room_id.as_str(), bucket)).collect();
        self.keyring
            .destroy_many(&dead)
            .map_err(|error| Error::internal(format!("data keys could not be destroyed: {error}")))?;
        Ok(())
    }

    /// The buckets of what waits for its redaction, beside these events; `None` if there is too much to tell.
    fn needed_buckets(&self, room_id: &RoomId, doomed: &[Doomed]) -> Result<Option<BTreeSet<u64>>, Error> {
        let rows = self.store.scan(
            Table::EventRedactionDue,
            &Key::new().text(room_id).prefix(),
            Order::Ascending,
            MAX_LOOKED_AT,
        )?;
        if rows.len() == MAX_LOOKED_AT {
            return Ok(None);
        }
        let going: BTreeSet<Vec<u8>> = doomed.iter().map(|one| DueRow::key(room_id, &one.event_id).into()).collect();
        let mut needed = BTreeSet::new();
        for (key, value) in rows {
            if !going.contains(&key) {
                needed.insert(from_json::<DueRow>(Table::EventRedactionDue, &value)?.bucket);
            }
        }
        Ok(Some(needed))
    }

    /// Keys of ended buckets that nothing refers to any more are destroyed: their last content died before its bucket
    /// ended. How many.
    ///
    /// # Errors
    /// As [`Core::destroy_ended_keys`].
    pub(super) async fn destroy_idle_keys(&self, now_ms: u64) -> Result<u64, Error> {
        let rooms: BTreeSet<OwnedRoomId> = self
            .keyring
            .expired_buckets(now_ms)
            .into_iter()
            .filter_map(|(room, _)| OwnedRoomId::try_from(room).ok())
            .collect();
        let mut destroyed = 0_u64;
        for room_id in rooms {
            if self.destroy_ended_keys(&room_id, &[], now_ms)? {
                destroyed = destroyed.saturating_add(1);
                let entry = AuditKind::Deletion {
                    room_id: room_id.as_str().to_owned(),
                    events: 0,
                    media: 0,
                    up_to_ms: now_ms,
                    key_destroyed: true,
                };
                self.commit_audited(&Batch::new(), vec![self.audit_act(entry)]).await?;
            }
        }
        Ok(destroyed)
    }
}

//! The content of old messages is gone, though its life was not over.

use std::sync::Arc;

use matron_storage::{Key, Order, Table};
use ruma::{OwnedEventId, RoomId};

use crate::{Core, Error, push::timeline_event};

/// How many events are looked at at once.
const PAGE: usize = 500;

/// What goes: everything before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PurgeUpTo {
    /// Before this place in the timeline.
    Place(u64),
    /// Sent before this time, ms since the epoch.
    Time(u64),
    /// All of it.
    Everything,
}

impl Core {
    /// The content of old messages goes, with their files: skeletons stay for the graph, state stays. With `local`,
    /// messages of this server's users too. The task's id.
    ///
    /// # Errors
    /// `M_NOT_FOUND` for an unknown room; as tasks begin.
    pub fn begin_purge_history(
        self: &Arc<Self>,
        room: &RoomId,
        up_to: PurgeUpTo,
        local: bool,
    ) -> Result<String, Error> {
        self.open_room(room)?;
        let id = self.begin_task(room, false)?;
        let (core, task, room) = (Arc::clone(self), id.clone(), room.to_owned());
        tokio::spawn(async move {
            let outcome = core.purge_history(&room, up_to, local).await;
            core.end_task(&task, outcome.map(|_| None));
        });
        Ok(id)
    }

    /// As [`Core::begin_purge_history`], done when this returns; how many events lost their content.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(super) async fn purge_history(&self, room: &RoomId, up_to: PurgeUpTo, local: bool) -> Result<u64, Error> {
        let mut range = Key::new().text(room).prefix();
        let mut purged = 0_u64;
        loop {
            let rows = self.store.scan(Table::RoomTimeline, &range, Order::Ascending, PAGE)?;
            let Some((last, _)) = rows.last() else { return Ok(purged) };
            range = range.after(last);
            let mut doomed: Vec<(OwnedEventId, u64)> = Vec::new();
            let mut reached = false;
            for (_, value) in &rows {
                let id = timeline_event(value);
                let Some(event) = id.map(|id| self.load_event(&id)).transpose()?.flatten() else { continue };
                if let PurgeUpTo::Place(place) = up_to
                    && event.record.timeline >= place
                {
                    reached = true;
                    break;
                }
                let old = match up_to {
                    PurgeUpTo::Time(before_ms) => event.pdu.origin_server_ts_ms() < before_ms,
                    PurgeUpTo::Place(_) | PurgeUpTo::Everything => true,
                };
                // Content that is not sealed is state, which the room needs.
                let has_content = event.record.bucket != 0 && !event.content_gone;
                if old && has_content && (local || !self.is_local_user(event.pdu.sender())) {
                    doomed.push((event.id().to_owned(), event.record.bucket));
                }
            }
            purged = purged.saturating_add(u64::try_from(doomed.len()).unwrap_or(0));
            self.purge_content(room, doomed).await?;
            if reached {
                return Ok(purged);
            }
        }
    }
}

//! The stream as `GET /events`, deprecated, tells it: oldest first, in steps that leave nothing out.

use std::sync::Arc;

use matron_room::Membership;
use matron_storage::{Order, StreamPos};
use ruma::UserId;

use super::{
    SyncAnswer, SyncRequest, SyncToken,
    timeline::{position_of, timeline_of},
};
use crate::{Core, Error, Requester, accounts::Filter};

/// The most events of one room in a step.
const MAX_EVENTS: usize = 100;

impl Core {
    /// What happened next since the token; waits if nothing did. Where `/sync` tells the newest events of a busy room and lets
    /// the client page back, this ends before the first event that does not fit.
    ///
    /// # Errors
    /// As [`Core::sync`].
    pub async fn event_stream(
        self: &Arc<Self>,
        requester: &Requester,
        since: SyncToken,
        timeout_ms: u64,
    ) -> Result<SyncAnswer, Error> {
        let mut filter = Filter::default();
        filter.room.timeline.limit = u64::try_from(MAX_EVENTS).ok();
        let request =
            SyncRequest { since: Some(since), filter: Arc::new(filter), timeout_ms, ..SyncRequest::default() };
        let answer = self.sync(requester, request.clone()).await?;
        match self.end_of_step(&requester.user_id, since.stream, &answer)? {
            Some(up_to) => self.build_sync(requester, &SyncRequest { up_to: Some(up_to), ..request }).await,
            None => Ok(answer),
        }
    }

    /// Up to where no room has more events than a step holds, if the answer left some out.
    fn end_of_step(&self, user: &UserId, since: StreamPos, answer: &SyncAnswer) -> Result<Option<StreamPos>, Error> {
        let joined = answer.rooms.join.iter().map(|(room, told)| (room, &told.timeline));
        let left = answer.rooms.leave.iter().map(|(room, told)| (room, &told.timeline));
        let mut end: Option<StreamPos> = None;
        for (room, _) in joined.chain(left).filter(|(_, timeline)| timeline.limited) {
            // What was said before the user came is not missed.
            if self.membership_in(&self.state_as_of(room, since)?, user)? != Membership::Join {
                continue;
            }
            let rows = self.timeline_rows(room, timeline_of(since), u64::MAX, Order::Ascending, MAX_EVENTS)?;
            if let Some(last) = rows.get(MAX_EVENTS.saturating_sub(1)) {
                let last = position_of(last.timeline);
                end = Some(end.map_or(last, |end| end.min(last)));
            }
        }
        Ok(end)
    }
}

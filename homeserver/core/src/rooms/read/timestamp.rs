//! `GET /rooms/{roomId}/timestamp_to_event`: the event closest to a time.

use std::sync::Arc;

use ruma::{RoomId, UserId};

use super::token::{Direction, Gap, Stretch};
use crate::{Core, Error, rooms::EventRef};

/// How many events around the place are looked at: clocks of servers differ, so times do not rise strictly.
const LOOKED_AT: usize = 200;
/// How many pages of older history one question may fetch.
const PAGES_FETCHED: usize = 10;
/// How many events are asked for at once.
const PAGE: usize = 100;

impl Core {
    /// The event closest to the time, at or after it (forward) or at or before it (backward).
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is none; [`Error::Forbidden`].
    pub fn event_at_time(
        &self,
        user: &UserId,
        room: &RoomId,
        ts_ms: u64,
        direction: Direction,
    ) -> Result<EventRef, Error> {
        let sight = self.sight_of(user, room)?;
        self.event_near_time(room, sight, ts_ms, direction, |event| self.can_see_event(user, event))?
            .ok_or_else(|| Error::not_found("there is no such event"))
    }

    /// As [`Core::event_at_time`], after older history was fetched from the room's servers if what is here begins later.
    ///
    /// # Errors
    /// As [`Core::event_at_time`].
    pub async fn fetch_event_at_time(
        self: &Arc<Self>,
        user: &UserId,
        room: &RoomId,
        ts_ms: u64,
        direction: Direction,
    ) -> Result<EventRef, Error> {
        // Whoever may not read here makes nobody fetch.
        self.sight_of(user, room)?;
        for _ in 0..PAGES_FETCHED {
            let oldest = self.rows_between(room, Gap::START, Gap::END, Direction::Forward, 1)?;
            let oldest = oldest.first().map(|row| self.load_event(&row.event_id)).transpose()?.flatten();
            let reaches_back = oldest.is_none_or(|event| event.pdu.origin_server_ts_ms() <= ts_ms);
            if reaches_back || self.backfill(room, PAGE).await? == 0 {
                break;
            }
        }
        self.event_at_time(user, room, ts_ms, direction)
    }

    /// As [`Core::event_at_time`], of the events that `may_see` lets through.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(crate) fn event_near_time(
        &self,
        room: &RoomId,
        end: Gap,
        ts_ms: u64,
        direction: Direction,
        mut may_see: impl FnMut(&EventRef) -> Result<bool, Error>,
    ) -> Result<Option<EventRef>, Error> {
        let at = self.gap_of_time(room, end, ts_ms)?;
        let forward = direction == Direction::Forward;
        let fits = |event: &EventRef| {
            let time = event.pdu.origin_server_ts_ms();
            if forward { time >= ts_ms } else { time <= ts_ms }
        };
        let older = Stretch { room, from: Gap::START, to: at };
        let newer = Stretch { room, from: at, to: end };
        let mut near = self.events_where(older, Direction::Backward, LOOKED_AT, |event| may_see(event))?.events;
        near.reverse();
        near.extend(self.events_where(newer, Direction::Forward, LOOKED_AT, |event| may_see(event))?.events);
        let distance = |event: &&EventRef| event.pdu.origin_server_ts_ms().abs_diff(ts_ms);
        let fitting = near.iter().filter(|event| fits(event));
        // Of several at the same time, the first in the direction of reading.
        Ok(if forward { fitting.min_by_key(distance) } else { fitting.rev().min_by_key(distance) }.cloned())
    }

    /// The gap before the first event at or after the time, as far as times rise with the timeline.
    fn gap_of_time(&self, room: &RoomId, end: Gap, ts_ms: u64) -> Result<Gap, Error> {
        let first = self.rows_between(room, Gap::START, end, Direction::Forward, 1)?;
        let last = self.rows_between(room, Gap::START, end, Direction::Backward, 1)?;
        let (Some(first), Some(last)) = (first.first(), last.first()) else { return Ok(end) };
        let (mut low, mut high) = (first.timeline, Gap::after(last.timeline).0);
        // INVARIANT: what is before `low` is older than the time, what is at or after `high` is not.
        while low < high {
            let middle = low.saturating_add((high - low) / 2);
            let row = self.rows_between(room, Gap(middle), Gap(high), Direction::Forward, 1)?.into_iter().next();
            let Some(row) = row else {
                high = middle;
                continue;
            };
            let time = self.load_event(&row.event_id)?.map_or(0, |event| event.pdu.origin_server_ts_ms());
            if time < ts_ms {
                low = row.timeline.saturating_add(1);
            } else {
                high = middle;
            }
        }
        Ok(Gap(low))
    }
}

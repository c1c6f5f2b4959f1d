//! `GET /timestamp_to_event/{roomId}`: the event that is nearest to a time.

use matron_storage::Order;
use ruma::{OwnedEventId, RoomId, ServerName};
use serde::Serialize;

use crate::{Core, Error, rooms::EventRef};

/// How many events around the place where the time should be are looked at, on each side. Clocks of servers differ, so
/// the order of a timeline is not exactly that of its times.
const AROUND: usize = 200;

/// The answer to `GET /timestamp_to_event`.
#[derive(Debug, Serialize)]
pub struct NearestEvent {
    /// The event.
    pub event_id: OwnedEventId,
    /// When it was sent, ms.
    pub origin_server_ts: u64,
}

impl Core {
    /// The event that the server may see and that is nearest to the time, at or after it (`forward`) or at or before it.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Forbidden`].
    pub fn serve_timestamp_to_event(
        &self,
        server: &ServerName,
        room_id: &RoomId,
        ts_ms: u64,
        forward: bool,
    ) -> Result<NearestEvent, Error> {
        let reader = self.reader_of(server, room_id)?;
        reader.require_in_room()?;
        let event = self.nearest_event(room_id, ts_ms, forward, |event| self.server_can_see_event(server, event))?;
        let event = event.ok_or_else(|| Error::not_found("the room has no event on that side of the time"))?;
        Ok(NearestEvent { event_id: event.id().to_owned(), origin_server_ts: event.pdu.origin_server_ts_ms() })
    }

    /// The event of the room's timeline that is nearest to the time, at or after it (`forward`) or at or before it, among
    /// those that `may_see` admits; nothing that has expired. Costs a few reads, whatever the length of the timeline.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn nearest_event(
        &self,
        room_id: &RoomId,
        ts_ms: u64,
        forward: bool,
        may_see: impl Fn(&EventRef) -> Result<bool, Error>,
    ) -> Result<Option<EventRef>, Error> {
        let place = self.place_of_time(room_id, ts_ms)?;
        let mut rows = self.timeline_rows(room_id, place.saturating_sub(1), u64::MAX, Order::Ascending, AROUND)?;
        rows.extend(self.timeline_rows(room_id, 0, place, Order::Descending, AROUND)?);
        let now_ms = self.now_ms();
        let mut nearest: Option<EventRef> = None;
        for event in self.load_events(rows.iter().map(|row| &*row.event_id))? {
            let ts = event.pdu.origin_server_ts_ms();
            let is_on_side = if forward { ts >= ts_ms } else { ts <= ts_ms };
            let rank = |event: &EventRef| (event.pdu.origin_server_ts_ms().abs_diff(ts_ms), event.record.timeline);
            let is_nearer = nearest.as_ref().is_none_or(|nearest| rank(&event) < rank(nearest));
            if is_on_side && is_nearer && event.is_shown(now_ms) && may_see(&event)? {
                nearest = Some(event);
            }
        }
        Ok(nearest)
    }

    /// The first place in the timeline whose event was sent at or after the time, as if times grew along it.
    fn place_of_time(&self, room_id: &RoomId, ts_ms: u64) -> Result<u64, Error> {
        let end = |order| -> Result<Option<u64>, Error> {
            Ok(self.timeline_rows(room_id, 0, u64::MAX, order, 1)?.first().map(|row| row.timeline))
        };
        let (Some(mut low), Some(last)) = (end(Order::Ascending)?, end(Order::Descending)?) else { return Ok(0) };
        let mut high = last.saturating_add(1);
        while low < high {
            let middle = low.midpoint(high);
            let row = self.timeline_rows(room_id, middle.saturating_sub(1), high, Order::Ascending, 1)?;
            let Some(row) = row.first() else {
                high = middle;
                continue;
            };
            let event = self.load_event(&row.event_id)?;
            if event.is_none_or(|event| event.pdu.origin_server_ts_ms() < ts_ms) {
                low = row.timeline.saturating_add(1);
            } else {
                high = middle;
            }
        }
        Ok(low)
    }
}

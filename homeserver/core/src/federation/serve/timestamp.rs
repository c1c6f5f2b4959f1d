//! `GET /timestamp_to_event/{roomId}`: the event that is nearest to a time.

use ruma::{OwnedEventId, RoomId, ServerName};
use serde::Serialize;

use crate::{
    Core, Error,
    rooms::read::token::{Direction, Gap},
};

/// The answer to `GET /timestamp_to_event`.
#[derive(Debug, Serialize)]
pub struct NearestEvent {
    /// The event.
    pub event_id: OwnedEventId,
    /// When it was sent, ms.
    pub origin_server_ts: u64,
}

impl Core {
    /// The event that the server may see and that is nearest to the time, at or after it (forward) or at or before it.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Forbidden`].
    pub fn serve_timestamp_to_event(
        &self,
        server: &ServerName,
        room_id: &RoomId,
        ts_ms: u64,
        direction: Direction,
    ) -> Result<NearestEvent, Error> {
        let reader = self.reader_of(server, room_id)?;
        reader.require_in_room()?;
        let may_see = |event: &_| self.server_can_see_event(server, event);
        let event = self.event_near_time(room_id, Gap::END, ts_ms, direction, may_see)?;
        let event = event.ok_or_else(|| Error::not_found("the room has no event on that side of the time"))?;
        Ok(NearestEvent { event_id: event.id().to_owned(), origin_server_ts: event.pdu.origin_server_ts_ms() })
    }
}

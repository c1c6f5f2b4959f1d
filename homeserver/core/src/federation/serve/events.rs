//! `GET /event/{eventId}`, `GET /event_auth/{roomId}/{eventId}`.

use matron_room::Pdu;
use ruma::{EventId, OwnedServerName, RoomId, ServerName};
use serde::Serialize;

use crate::{Core, Error, rooms::Status};

/// The answer to `GET /event`.
#[derive(Debug, Serialize)]
pub struct EventAnswer {
    /// Who answers.
    pub origin: OwnedServerName,
    /// Now, ms.
    pub origin_server_ts: u64,
    /// The one event.
    pub pdus: [Pdu; 1],
}

/// The answer to `GET /event_auth`.
#[derive(Debug, Serialize)]
pub struct EventAuth {
    /// The events that authorise it, what authorises those, and so on.
    pub auth_chain: Vec<Pdu>,
}

impl Core {
    /// The event, as the server may see it. State that others refer to is given even if it never had a place in the timeline.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Forbidden`].
    pub fn serve_event(&self, server: &ServerName, event_id: &EventId) -> Result<EventAnswer, Error> {
        let unknown = || Error::not_found("this event is not known");
        let event = self.load_event(event_id)?.filter(|event| event.is_usable()).ok_or_else(unknown)?;
        let reader = self.reader_of(server, event.pdu.room_id())?;
        let pdu = if event.record.status == Status::Outlier {
            // Authority of other events: those in the room need it to judge them.
            reader.require_in_room()?;
            if event.pdu.is_state() { event.pdu.clone() } else { skeleton(&event.pdu)? }
        } else {
            let event = reader.event(event_id)?;
            reader.shown(&event)?.ok_or_else(unknown)?
        };
        Ok(EventAnswer { origin: self.server_name.clone(), origin_server_ts: self.now_ms(), pdus: [pdu] })
    }

    /// The auth chain of the event.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Forbidden`], [`Error::TooLarge`].
    pub fn serve_event_auth(
        &self,
        server: &ServerName,
        room_id: &RoomId,
        event_id: &EventId,
    ) -> Result<EventAuth, Error> {
        let reader = self.reader_of(server, room_id)?;
        // An outlier of this room has an auth chain like any other event.
        let event = match self.load_event(event_id)?.filter(|event| event.record.status == Status::Outlier) {
            Some(outlier) if outlier.pdu.room_id() == room_id => {
                reader.require_in_room()?;
                outlier
            }
            _ => reader.event(event_id)?,
        };
        let chain = self.auth_chain_events([event.id()])?;
        Ok(EventAuth { auth_chain: chain.iter().map(|event| event.pdu.clone()).collect() })
    }
}

fn skeleton(pdu: &Pdu) -> Result<Pdu, Error> {
    pdu.skeleton().map_err(|error| Error::internal(error.to_string()))
}

//! `GET /state/{roomId}`, `GET /state_ids/{roomId}`: the state before an event.

use std::collections::BTreeSet;

use matron_room::Pdu;
use ruma::{EventId, OwnedEventId, RoomId, ServerName};
use serde::Serialize;

use crate::{Core, Error};

/// The answer to `GET /state`.
#[derive(Debug, Serialize)]
pub struct RoomState {
    /// The state.
    pub pdus: Vec<Pdu>,
    /// What authorises it.
    pub auth_chain: Vec<Pdu>,
}

/// The answer to `GET /state_ids`.
#[derive(Debug, Serialize)]
pub struct RoomStateIds {
    /// The state.
    pub pdu_ids: Vec<OwnedEventId>,
    /// What authorises it.
    pub auth_chain_ids: BTreeSet<OwnedEventId>,
}

impl Core {
    /// The state before the event.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Forbidden`], [`Error::TooLarge`].
    pub fn serve_state(&self, server: &ServerName, room_id: &RoomId, event_id: &EventId) -> Result<RoomState, Error> {
        let ids = self.serve_state_ids(server, room_id, event_id)?;
        let events = |ids: &mut dyn Iterator<Item = &OwnedEventId>| -> Result<Vec<Pdu>, Error> {
            Ok(self.load_events(ids.map(|id| &**id))?.iter().map(|event| event.pdu.clone()).collect())
        };
        Ok(RoomState { pdus: events(&mut ids.pdu_ids.iter())?, auth_chain: events(&mut ids.auth_chain_ids.iter())? })
    }

    /// The ids of the state before the event.
    ///
    /// # Errors
    /// As [`Core::serve_state`].
    pub fn serve_state_ids(
        &self,
        server: &ServerName,
        room_id: &RoomId,
        event_id: &EventId,
    ) -> Result<RoomStateIds, Error> {
        let reader = self.reader_of(server, room_id)?;
        let event = reader.event(event_id)?;
        let state = self.load_state_group(event.record.state_before)?;
        let pdu_ids: Vec<OwnedEventId> = state.values().map(|id| (**id).clone()).collect();
        let mut authorities = Vec::new();
        for event in self.load_events(pdu_ids.iter().map(|id| &**id))? {
            authorities.extend(event.pdu.auth_event_ids_with_create());
        }
        let auth_chain_ids = self.auth_chain(authorities.iter().map(|id| &**id))?;
        Ok(RoomStateIds { pdu_ids, auth_chain_ids })
    }
}

//! The state before an event from outside: of what it follows, or, where that is unknown, as its origin gives it.

use std::{sync::Arc, time::Duration};

use matron_room::Pdu;
use matron_storage::Batch;
use ruma::{OwnedEventId, ServerName};
use serde_json::Value;

use crate::{
    Core, Error,
    federation::{
        fetch::{MAX_EVENTS, MAX_STATE_BYTES, encode, raw_events},
        state_at::NamedState,
    },
    rooms::{GroupId, Room, StateKey, StateMap, state_map::difference},
};

impl Core {
    /// The state before the event. What is new of it goes into the batch.
    ///
    /// # Errors
    /// [`Error::Store`]; [`Error::Peer`] when history is missing and nobody gives the state.
    pub(super) async fn state_before_event(
        &self,
        batch: &mut Batch,
        origin: &ServerName,
        room: &Arc<Room>,
        pdu: &Pdu,
    ) -> Result<NamedState, Error> {
        let mut states = Vec::new();
        let mut gap = pdu.prev_events().is_empty();
        for prev in pdu.prev_events() {
            match self.load_event(prev)? {
                Some(prev) if self.is_in_graph(prev.id())? => states.push(self.state_after(batch, &prev)?),
                _ => gap = true,
            }
        }
        if !gap {
            return self.resolve_states(batch, room.version(), states);
        }
        for server in self.servers_to_ask(Some(origin), room) {
            match self.fetch_state_before(&server, room, pdu).await {
                Ok(state) if !state.is_empty() => {
                    let changes = difference(&StateMap::new(), &state);
                    let group = self.write_state_group(batch, GroupId::EMPTY, &changes, &state)?;
                    states.push(NamedState { state, group });
                    return self.resolve_states(batch, room.version(), states);
                }
                Ok(_) | Err(Error::Peer(_) | Error::PeerAnswer { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::Peer("history before this event is missing, and no server gives its state".into()))
    }

    /// The state before the event as a peer gives it; its events are kept as outliers.
    ///
    /// # Errors
    /// [`Error::Peer`], [`Error::PeerAnswer`], [`Error::Store`].
    pub(crate) async fn fetch_state_before(
        &self,
        server: &ServerName,
        room: &Arc<Room>,
        pdu: &Pdu,
    ) -> Result<StateMap, Error> {
        let query = format!("{}?event_id={}", encode(room.id().as_str()), encode(pdu.event_id().as_str()));
        let ids_path = format!("/_matrix/federation/v1/state_ids/{query}");
        let answer = self.peer_get(server, ids_path, Duration::from_secs(30), MAX_STATE_BYTES).await?;
        let state_ids = event_ids(&answer, "pdu_ids");
        let chain_ids = event_ids(&answer, "auth_chain_ids");
        let unknown = self.unknown_of(chain_ids.into_iter().chain(state_ids.iter().cloned()))?;
        if unknown.len() > 20 {
            let path = format!("/_matrix/federation/v1/state/{query}");
            if let Ok(answer) = self.peer_get(server, path, Duration::from_secs(60), MAX_STATE_BYTES).await {
                let mut events = raw_events(&answer, "auth_chain");
                events.extend(raw_events(&answer, "pdus"));
                let verified = self.verified_events(room.version(), room.id(), events).await?;
                self.keep_outliers(verified).await?;
            }
        }
        self.fetch_one_by_one(server, room.version(), room.id(), unknown).await?;
        let mut state = StateMap::new();
        for id in state_ids {
            let Some(event) = self.load_event(&id)?.filter(|event| event.is_usable()) else { continue };
            if event.pdu.room_id() != room.id() {
                continue;
            }
            if let Some(key) = event.pdu.state_key() {
                state.insert(StateKey::new(event.pdu.kind(), key), Arc::new(id));
            }
        }
        Ok(state)
    }
}

fn event_ids(answer: &Value, key: &str) -> Vec<OwnedEventId> {
    let Some(list) = answer.get(key).and_then(Value::as_array) else { return Vec::new() };
    list.iter().take(MAX_EVENTS).filter_map(|id| id.as_str()?.try_into().ok()).collect()
}

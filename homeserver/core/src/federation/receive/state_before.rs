//! The state before an event from outside: of what it follows, or, where that is unknown, as its origin gives it.

use std::{sync::Arc, time::Duration};

use matron_room::Pdu;
use matron_storage::Batch;
use ruma::{EventId, OwnedEventId, ServerName};
use serde_json::Value;

use crate::{
    Core, Error,
    federation::{
        fetch::{MAX_EVENTS, MAX_STATE_BYTES, encode, raw_events},
        state_at::NamedState,
    },
    rooms::{GroupId, Room, StateKey, StateMap, state_map::difference},
};

/// What a peer gave to judge an event by.
struct Fetched {
    states: Vec<StateMap>,
    /// It is the state before the event, after all that it follows; else the states after what is missing alone.
    of_all: bool,
}

/// The state by which an event from outside is judged.
pub(super) struct Before {
    /// The state.
    pub(super) state: NamedState,
    /// It is as a peer says, whatever is known of what the event follows.
    pub(super) is_dictated: bool,
}

impl Core {
    /// The state before the event. What is new of it goes into the batch.
    ///
    /// An event that its origin `pushed` to us without giving what comes before it is judged by the state before itself;
    /// one that was found on a walk back, by the states after what is missing before it.
    ///
    /// # Errors
    /// [`Error::Store`]; [`Error::Peer`] when history is missing and nobody gives the state.
    pub(super) async fn state_before_event(
        self: &Arc<Self>,
        batch: &mut Batch,
        origin: &ServerName,
        room: &Arc<Room>,
        pdu: &Pdu,
        pushed: bool,
    ) -> Result<Before, Error> {
        let mut states = Vec::new();
        let mut missing = Vec::new();
        for prev in pdu.prev_events() {
            match self.load_event(prev)? {
                Some(prev) if self.is_in_graph(room.id(), prev.id())? => states.push(self.state_after(batch, &prev)?),
                _ => missing.push(prev.clone()),
            }
        }
        if missing.is_empty() && !pdu.prev_events().is_empty() {
            let state = self.resolve_states(batch, room.version(), states)?;
            return Ok(Before { state, is_dictated: false });
        }
        if pushed {
            missing.clear();
        }
        for server in self.servers_to_ask(Some(origin), room) {
            match self.fetch_states(&server, room, pdu, &missing).await {
                Ok(fetched) => {
                    let mut named = Vec::with_capacity(fetched.states.len());
                    for state in fetched.states {
                        let changes = difference(&StateMap::new(), &state);
                        let group = self.write_state_group(batch, GroupId::EMPTY, &changes, &state)?;
                        named.push(NamedState { state, group });
                    }
                    if fetched.of_all {
                        // INVARIANT: the others have resolved it already. Resolved with some of what it came from once more, it
                        // may become another, and servers in one room would part.
                        states.clear();
                    }
                    states.extend(named);
                    let state = self.resolve_states(batch, room.version(), states)?;
                    return Ok(Before { state, is_dictated: fetched.of_all });
                }
                Err(Error::Peer(_) | Error::PeerAnswer { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::Peer("history before this event is missing, and no server gives its state".into()))
    }

    /// The states after the missing events that this one follows, as a peer gives them; if it does not know one of them, the
    /// state before the event itself.
    async fn fetch_states(
        self: &Arc<Self>,
        server: &ServerName,
        room: &Arc<Room>,
        pdu: &Pdu,
        missing: &[OwnedEventId],
    ) -> Result<Fetched, Error> {
        let mut states = Vec::with_capacity(missing.len());
        for prev in missing {
            match self.fetch_state_after(server, room, prev).await {
                Ok(state) => states.push(state),
                Err(Error::Peer(_) | Error::PeerAnswer { .. }) => {
                    states.clear();
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        let of_all = states.is_empty();
        if of_all {
            states.push(self.fetch_state_before(server, room, pdu.event_id()).await?);
        }
        Ok(Fetched { states, of_all })
    }

    /// The state after an event of which nothing is known yet; the event is kept as an outlier.
    async fn fetch_state_after(
        self: &Arc<Self>,
        server: &ServerName,
        room: &Arc<Room>,
        id: &EventId,
    ) -> Result<StateMap, Error> {
        let mut state = self.fetch_state_before(server, room, id).await?;
        self.fetch_one_by_one(server, room.version(), room.id(), vec![id.to_owned()]).await?;
        let event = self.load_event(id)?.filter(|event| event.pdu.room_id() == room.id());
        let event = event.ok_or_else(|| Error::Peer("the server does not give an event whose state it gave".into()))?;
        if let Some(key) = event.pdu.state_key().filter(|_| event.is_usable()) {
            state.insert(StateKey::new(event.pdu.kind(), key), Arc::new(id.to_owned()));
        }
        Ok(state)
    }

    /// The state before the event as a peer gives it; its events are kept as outliers.
    ///
    /// # Errors
    /// [`Error::Peer`], also for an empty state, [`Error::PeerAnswer`], [`Error::Store`].
    pub(crate) async fn fetch_state_before(
        self: &Arc<Self>,
        server: &ServerName,
        room: &Arc<Room>,
        id: &EventId,
    ) -> Result<StateMap, Error> {
        let query = format!("{}?event_id={}", encode(room.id().as_str()), encode(id.as_str()));
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
                let verified = self.verify_state(room.version(), room.id(), events).await?;
                let _known = self.keep_outliers(verified.into_iter().flatten().collect()).await?;
            }
        }
        let answered = self.fetch_one_by_one(server, room.version(), room.id(), unknown).await?;
        if !answered && !self.unknown_of(state_ids.iter().cloned())?.is_empty() {
            // Half a state is another one: what it lacks would be lost to everything that follows.
            return Err(Error::Peer("the server fell silent before it gave the whole state".into()));
        }
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
        if state.is_empty() {
            return Err(Error::Peer("the server gave an empty state".into()));
        }
        Ok(state)
    }
}

fn event_ids(answer: &Value, key: &str) -> Vec<OwnedEventId> {
    let Some(list) = answer.get(key).and_then(Value::as_array) else { return Vec::new() };
    list.iter().take(MAX_EVENTS).filter_map(|id| id.as_str()?.try_into().ok()).collect()
}

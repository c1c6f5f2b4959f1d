//! History from before this server was in a room, or lost touch (Server-Server API, "Backfilling and retrieving missing events").

use std::{collections::HashMap, sync::Arc, time::Duration};

use matron_room::{Pdu, check_auth};
use matron_storage::{Batch, Key, Order, Table};
use ruma::{EventId, OwnedEventId, RoomId, ServerName};
use serde_json::Value;

use super::{
    fetch::{encode, raw_events},
    graph::in_order,
    state_at::NamedState,
};
use crate::{
    Core, Error,
    retention::outlives_words,
    rooms::{GroupId, Room, StateKey, StoredEvent, append::Append},
};

/// The most that is asked for at once.
const MAX_LIMIT: usize = 100;
/// Behind how many pages that the room's policy server refuses whole one look for history sees.
const REFUSED_PAGES: usize = 10;
/// For how long it goes on to the next of them, ms: others of the room wait meanwhile.
const REFUSED_TIMEOUT_MS: u64 = 30_000;

/// An event of the past that may have its place.
pub(super) struct Historic {
    /// The event.
    pub pdu: Pdu,
    /// The state before it.
    pub before: GroupId,
    /// The state after it.
    pub after: GroupId,
}

/// What a peer told of the past.
pub(super) enum Told {
    /// Events that are new here and may have their place, oldest first.
    Events(Vec<Historic>),
    /// Nothing that is new here.
    Nothing,
    /// As far as one look sees, nothing but what the room's policy server refuses: there may be more behind.
    Refused,
}

/// What a page of the past came to.
#[derive(Default)]
struct Page {
    /// What may have its place, oldest first.
    placed: Vec<Historic>,
    /// Some of it would have had a place, but the room's policy server refused it.
    refused: bool,
}

impl Core {
    /// Older history of the room is here, as far as a server in it gives any; gives how many events came.
    ///
    /// # Errors
    /// [`Error::Store`]; that nobody answers is no error.
    pub async fn backfill(self: &Arc<Self>, room_id: &RoomId, limit: usize) -> Result<usize, Error> {
        let Some(room) = self.find_room(room_id)?.filter(|room| room.has_server(&self.server_name)) else {
            return Ok(0);
        };
        let turn = self.inbound.room_turn(room_id);
        let _turn = turn.lock().await;
        let Some(oldest) = self.oldest_event(&room)? else { return Ok(0) };
        let mut gap = false;
        for prev in oldest.pdu.prev_events() {
            gap |= !self.is_in_graph(room_id, prev)?;
        }
        let end = Key::new().text("history ends").text(room_id);
        let ended = self.store.get(Table::Misc, end.as_bytes())?;
        if !gap || ended.as_deref() == Some(oldest.id().as_bytes()) {
            return Ok(0);
        }
        let (mut answered, mut refused) = (false, false);
        for server in self.servers_to_ask(Some(oldest.pdu.sender().server_name()), &room) {
            if self.is_local(&server) {
                continue;
            }
            match self.history_before(&server, &room, &oldest, limit.min(MAX_LIMIT)).await {
                Ok(Told::Events(history)) => return self.place_before_all(&room, history).await,
                Ok(Told::Nothing) => answered = true,
                Ok(Told::Refused) => refused = true,
                Err(error @ Error::Store(_)) => return Err(error),
                Err(error) => tracing::debug!(room.id = %room_id, peer.name = %server, %error, "no history from here"),
            }
        }
        if answered && !refused {
            let mut batch = Batch::new();
            batch.put(Table::Misc, end, oldest.id().as_bytes());
            self.commit(batch).await?;
        }
        Ok(0)
    }

    pub(crate) fn oldest_event(&self, room: &Room) -> Result<Option<Arc<StoredEvent>>, Error> {
        match self.timeline_rows(room.id(), 0, u64::MAX, Order::Ascending, 1)?.first() {
            Some(row) => self.load_event(&row.event_id),
            None => Ok(None),
        }
    }

    async fn place_before_all(self: &Arc<Self>, room: &Arc<Room>, history: Vec<Historic>) -> Result<usize, Error> {
        let count = history.len();
        // The newest first: each goes before all that the timeline holds.
        for one in history.into_iter().rev() {
            self.append_history(room, Append::history(one.pdu, one.before, Batch::new())).await?;
        }
        Ok(count)
    }

    /// What a peer gives of the history before an event, as far as it is new here and may be shown.
    ///
    /// # Errors
    /// [`Error::Peer`], [`Error::PeerAnswer`], [`Error::Store`].
    pub(super) async fn history_before(
        self: &Arc<Self>,
        server: &ServerName,
        room: &Arc<Room>,
        oldest: &StoredEvent,
        limit: usize,
    ) -> Result<Told, Error> {
        let until_ms = self.now_ms().saturating_add(REFUSED_TIMEOUT_MS);
        let mut before = oldest.id().to_owned();
        for seen in 0..REFUSED_PAGES {
            let events = self.history_page(server, room, &before, limit).await?;
            let first = match events.first() {
                Some(pdu) => pdu.event_id().to_owned(),
                None if seen == 0 => return Ok(Told::Nothing),
                // The peer said so of a branch of what was refused, not of the room.
                None => break,
            };
            let page = self.place_history(server, room, events).await?;
            if !page.placed.is_empty() {
                return Ok(Told::Events(page.placed));
            }
            if !page.refused && seen == 0 {
                return Err(Error::Peer("none of the history that the server gives has a place".into()));
            }
            if !page.refused || self.now_ms() >= until_ms {
                break;
            }
            // What the policy server refuses whole must not hide what is older.
            before = first;
        }
        Ok(Told::Refused)
    }

    /// What a peer gives before an event, as far as it is new here; oldest first.
    async fn history_page(
        self: &Arc<Self>,
        server: &ServerName,
        room: &Arc<Room>,
        before: &EventId,
        limit: usize,
    ) -> Result<Vec<Pdu>, Error> {
        // SPEC: the answer begins with the event that was named, which is known here.
        let path = format!(
            "/_matrix/federation/v1/backfill/{}?v={}&limit={}",
            encode(room.id().as_str()),
            encode(before.as_str()),
            limit.saturating_add(1)
        );
        let answer: Value = self.peer_get(server, path, Duration::from_secs(30), 16 * 1024 * 1024).await?;
        let mut events = Vec::new();
        for pdu in self.verified_events(room.version(), room.id(), raw_events(&answer, "pdus")).await? {
            if pdu.event_id() != before && !self.is_in_graph(room.id(), pdu.event_id())? && events.len() < limit {
                events.push(pdu);
            }
        }
        Ok(in_order(events, |pdu| pdu.prev_events().to_vec()))
    }

    /// The events that their authority, the state before them and the room's policy server allow, oldest first, with that
    /// state.
    async fn place_history(
        self: &Arc<Self>,
        server: &ServerName,
        room: &Arc<Room>,
        events: Vec<Pdu>,
    ) -> Result<Page, Error> {
        let mut after: HashMap<OwnedEventId, NamedState> = HashMap::new();
        let mut page = Page::default();
        // INVARIANT: the states are on the disk before any of the events: those are placed from the newest on, whose state
        // builds on that of the older ones, and some of them may never get a place.
        let mut batch = Batch::new();
        let recommended = self.recommended_history(room, &events).await?;
        for (pdu, recommended) in events.into_iter().zip(recommended) {
            self.fetch_missing_auth(server, &pdu).await?;
            if self.check_by_auth_events(&pdu, &HashMap::new()).is_err() {
                continue;
            }
            let before = match self.state_before_history(&mut batch, server, room, &pdu, &after).await {
                Ok(before) => before,
                // A server that fell silent tells nothing about the event: the whole page is asked for again.
                Err(error @ (Error::Store(_) | Error::Peer(_))) => return Err(error),
                Err(_) => continue,
            };
            let find = |kind: &str, key: &str| {
                let id = before.state.get(&StateKey::new(kind, key))?;
                self.load_event(id).ok().flatten().map(|event| event.pdu.clone())
            };
            if check_auth(&pdu, find).is_err() {
                continue;
            }
            let mut state = before.clone();
            if let Some(key) = pdu.state_key() {
                // Others of this page are judged by it before it is placed.
                let _known = self.keep_outliers(vec![pdu.clone()]).await?;
                let change = (StateKey::new(pdu.kind(), key), Some(Arc::new(pdu.event_id().to_owned())));
                state.state.insert(change.0.clone(), Arc::new(pdu.event_id().to_owned()));
                state.group = self.write_state_group(&mut batch, before.group, &[change], &state.state)?;
            }
            let after_group = state.group;
            after.insert(pdu.event_id().to_owned(), state);
            // What is refused is soft-failed: it counts for the state, and is shown to nobody.
            match recommended {
                Some(pdu) => page.placed.push(Historic { pdu, before: before.group, after: after_group }),
                None => page.refused = true,
            }
        }
        if !batch.is_empty() {
            self.commit(batch).await?;
        }
        Ok(page)
    }

    async fn state_before_history(
        self: &Arc<Self>,
        batch: &mut Batch,
        server: &ServerName,
        room: &Arc<Room>,
        pdu: &Pdu,
        after: &HashMap<OwnedEventId, NamedState>,
    ) -> Result<NamedState, Error> {
        if pdu.kind() == "m.room.create" {
            return Ok(NamedState::default());
        }
        let mut states = Vec::new();
        for prev in pdu.prev_events() {
            if let Some(state) = after.get(prev) {
                states.push(state.clone());
            } else if self.is_in_graph(room.id(), prev)?
                && let Some(event) = self.load_event(prev)?
            {
                states.push(self.state_after(batch, &event)?);
            } else {
                let state = self.fetch_state_before(server, room, pdu.event_id()).await?;
                let changes = crate::rooms::state_map::difference(&crate::rooms::StateMap::new(), &state);
                let group = self.write_state_group(batch, GroupId::EMPTY, &changes, &state)?;
                return Ok(NamedState { state, group });
            }
        }
        self.resolve_states(batch, room.version(), states)
    }

    /// The event has its place, unless it is over already: `false` then.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(super) async fn append_history(self: &Arc<Self>, room: &Arc<Room>, item: Append) -> Result<bool, Error> {
        let appending = {
            let mut inner = room.lock();
            // What died before it came is not brought back.
            let (_, expires_ms) = self.life_of(&mut inner, &item.pdu, self.now_ms())?;
            if expires_ms != 0 && expires_ms <= self.now_ms() && !outlives_words(&item.pdu) {
                return Ok(false);
            }
            self.append(room, &mut inner, item)?
        };
        self.finish_append(appending).await?;
        Ok(true)
    }
}

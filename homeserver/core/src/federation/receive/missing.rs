//! History between what is known and a new event (Server-Server API, "Retrieving missing events").

use std::{collections::HashSet, sync::Arc, time::Duration};

use matron_room::Pdu;
use ruma::{OwnedEventId, ServerName};
use serde_json::json;

use crate::{
    Core, Error,
    federation::{
        fetch::{encode, raw_events},
        graph::in_order,
        receive::pdu::How,
    },
    ports::http_method::Method,
    rooms::{Room, Status},
};

/// How many events one question asks for.
const PER_QUESTION: usize = 50;
/// How many questions are asked for one event: beyond, its state is fetched and the gap stays. Synapse gives no more
/// than 20 events for each, and after an outage it tells the newest event of a room alone.
const QUESTIONS: usize = 50;
/// How many events are taken for one event.
const MAX_FETCHED: usize = 1_000;
/// How long may be asked for one event, ms.
const MAX_ASKING_MS: u64 = 60_000;

impl Core {
    /// As far as the peer gives them, the events between the ends of the graph and this one are received; with `behind`, the
    /// event itself has been received already, and they come to stand behind it.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(super) async fn fetch_missing_history(
        self: &Arc<Self>,
        origin: &ServerName,
        room: &Arc<Room>,
        pdu: &Pdu,
        behind: bool,
    ) -> Result<(), Error> {
        let mut fetched: Vec<Pdu> = Vec::new();
        let mut ids: HashSet<OwnedEventId> = HashSet::new();
        if self.missing_prevs(std::iter::once(pdu), &ids)?.is_empty() {
            return Ok(());
        }
        let mut latest = vec![pdu.clone()];
        // What was before this server came is for those who ask for history, and is nothing new: no end of the graph, and no
        // state that could overrule what is.
        let floor = self.oldest_event(room)?.map_or(0, |oldest| oldest.pdu.depth());
        let until_ms = self.now_ms().saturating_add(MAX_ASKING_MS);
        for _ in 0..QUESTIONS {
            let missing = self.missing_prevs(latest.iter().chain(&fetched), &ids)?;
            if missing.is_empty() || fetched.len() >= MAX_FETCHED || self.now_ms() > until_ms {
                break;
            }
            let answer = self.ask_missing(origin, room, &latest, pdu.depth(), behind, floor).await;
            let Ok(events) = answer else { break };
            let before = fetched.len();
            for event in self.verified_events(room.version(), room.id(), events).await? {
                let known = self.is_in_graph(room.id(), event.event_id())?;
                if !known
                    && event.depth() >= floor
                    && event.event_id() != pdu.event_id()
                    && ids.insert(event.event_id().to_owned())
                {
                    fetched.push(event);
                }
            }
            if fetched.len() == before {
                break;
            }
            latest.clone_from(&fetched);
            latest.sort_by_key(Pdu::depth);
            latest.truncate(10);
        }
        for event in in_order(fetched, |pdu| pdu.prev_events().to_vec()) {
            let how = How { may_fetch_history: false, relay: false, behind };
            match self.receive_as(origin, room, event, how).await {
                Err(error @ Error::Store(_)) => return Err(error),
                Ok(_) => {}
                // The event that follows it is judged without it.
                Err(error) => tracing::debug!(room.id = %room.id(), %error, "a missing event is left out"),
            }
        }
        Ok(())
    }

    /// The prev events of these that are neither in the graph nor among `beside`.
    fn missing_prevs<'a>(
        &self,
        events: impl Iterator<Item = &'a Pdu>,
        beside: &HashSet<OwnedEventId>,
    ) -> Result<Vec<OwnedEventId>, Error> {
        let mut missing = Vec::new();
        for event in events {
            for prev in event.prev_events() {
                if !missing.contains(prev) && !beside.contains(prev) && !self.is_in_graph(event.room_id(), prev)? {
                    missing.push(prev.clone());
                }
            }
        }
        Ok(missing)
    }

    /// Whether the event has its place in the room's graph, on its way to the disk at least; outliers have none, and events of
    /// other rooms.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(crate) fn is_in_graph(&self, room: &ruma::RoomId, id: &ruma::EventId) -> Result<bool, Error> {
        let event = self.rooms.under_way(id).map_or_else(|| self.load_event(id), |event| Ok(Some(event)))?;
        Ok(event.is_some_and(|event| event.record.status != Status::Outlier && event.pdu.room_id() == room))
    }

    async fn ask_missing(
        &self,
        origin: &ServerName,
        room: &Room,
        latest: &[Pdu],
        depth: u64,
        behind: bool,
        floor: u64,
    ) -> Result<Vec<Box<serde_json::value::RawValue>>, Error> {
        // An end is no bound for what lies behind it.
        let mut earliest: Vec<_> = room.extremities();
        earliest.retain(|end| !latest.iter().any(|event| event.event_id() == end));
        let min_depth = room.lock().head.extremities.iter().map(|(_, depth)| *depth).min().unwrap_or(0);
        let body = json!({
            "earliest_events": earliest,
            "latest_events": latest.iter().map(Pdu::event_id).collect::<Vec<_>>(),
            "limit": PER_QUESTION,
            "min_depth": if behind { floor } else { min_depth.min(depth).saturating_sub(1).max(floor) },
        });
        let path = format!("/_matrix/federation/v1/get_missing_events/{}", encode(room.id().as_str()));
        let answer =
            self.peer_json(origin, Method::Post, path, Some(body), Duration::from_secs(20), 16 * 1024 * 1024).await?;
        Ok(raw_events(&answer, "events"))
    }
}

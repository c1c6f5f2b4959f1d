//! `GET /backfill/{roomId}`, `POST /get_missing_events/{roomId}`: walks back through the graph.

use std::collections::{BinaryHeap, HashSet};

use matron_room::Pdu;
use ruma::{EventId, OwnedEventId, OwnedServerName, RoomId, ServerName};
use serde::{Deserialize, Serialize};

use super::access::Reader;
use crate::{
    Core, Error,
    rooms::{EventRef, Status},
};

/// The most events that one answer holds.
const MAX_EVENTS: usize = 100;
/// How many events one walk looks at.
const MAX_LOOKED_AT: usize = 2_000;
/// How many events a question may begin at.
const MAX_STARTS: usize = 100;

/// The answer to `GET /backfill`.
#[derive(Debug, Serialize)]
pub struct Backfill {
    /// Who answers.
    pub origin: OwnedServerName,
    /// Now, ms.
    pub origin_server_ts: u64,
    /// The events, latest first.
    pub pdus: Vec<Pdu>,
}

/// The body of `POST /get_missing_events`.
#[derive(Clone, Debug, Deserialize)]
pub struct MissingRequest {
    /// Events that the other server has, and with them all that came before: the walk ends there.
    #[serde(default)]
    pub earliest_events: Vec<OwnedEventId>,
    /// Events whose history it wants.
    #[serde(default)]
    pub latest_events: Vec<OwnedEventId>,
    /// How many at most; 10 if absent.
    #[serde(default)]
    pub limit: Option<u64>,
    /// No event of a smaller depth.
    #[serde(default)]
    pub min_depth: Option<u64>,
}

/// The answer to `POST /get_missing_events`.
#[derive(Debug, Serialize)]
pub struct MissingEvents {
    /// The events, oldest first.
    pub events: Vec<Pdu>,
}

/// An event in a walk from the deepest to the least deep.
struct Deep(EventRef);

impl Deep {
    fn rank(&self) -> (u64, u64, &ruma::EventId) {
        (self.0.pdu.depth(), self.0.record.timeline, self.0.id())
    }
}

impl PartialEq for Deep {
    fn eq(&self, other: &Self) -> bool {
        self.rank() == other.rank()
    }
}

impl Eq for Deep {}

impl PartialOrd for Deep {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Deep {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.rank().cmp(&other.rank())
    }
}

fn bounded(limit: Option<u64>, otherwise: usize) -> usize {
    limit.map_or(otherwise, |limit| usize::try_from(limit).unwrap_or(MAX_EVENTS)).min(MAX_EVENTS)
}

impl Core {
    /// The events and what came before them, as the server may see them.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Forbidden`].
    pub fn serve_backfill(
        &self,
        server: &ServerName,
        room_id: &RoomId,
        from: &[OwnedEventId],
        limit: Option<u64>,
    ) -> Result<Backfill, Error> {
        let reader = self.reader_of(server, room_id)?;
        let limit = bounded(limit, 10);
        let mut seen = HashSet::new();
        let mut heap = BinaryHeap::new();
        for id in from.iter().take(MAX_STARTS) {
            // Events of other rooms are no beginning here.
            if let Some(event) = reader.find_step(id)?
                && seen.insert(id.clone())
            {
                heap.push(Deep(event));
            }
        }
        if heap.is_empty() {
            reader.require_in_room()?;
        }
        let mut pdus = Vec::new();
        let mut looked_at = 0_usize;
        while let Some(Deep(event)) = heap.pop() {
            looked_at = looked_at.saturating_add(1);
            if pdus.len() >= limit || looked_at > MAX_LOOKED_AT {
                break;
            }
            pdus.extend(reader.shown(&event)?);
            for prev in event.pdu.prev_events() {
                if seen.insert(prev.clone())
                    && let Some(prev) = reader.find_step(prev)?
                {
                    heap.push(Deep(prev));
                }
            }
        }
        if pdus.is_empty() {
            reader.require_in_room()?;
        }
        Ok(Backfill { origin: self.server_name.clone(), origin_server_ts: self.now_ms(), pdus })
    }

    /// The events between those that the server has and those whose history it wants, as it may see them.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Forbidden`].
    pub fn serve_missing_events(
        &self,
        server: &ServerName,
        room_id: &RoomId,
        request: &MissingRequest,
    ) -> Result<MissingEvents, Error> {
        let reader = self.reader_of(server, room_id)?;
        reader.require_in_room()?;
        let found = missing_between(&reader, request)?;
        let mut events = Vec::with_capacity(found.len());
        for event in &found {
            events.extend(reader.shown(event)?);
        }
        Ok(MissingEvents { events })
    }
}

/// What the asking server has.
struct Known<'a> {
    /// Events whose history it asks for: it lacks what led to them, though it may have what followed.
    latest: HashSet<&'a EventId>,
    /// The earliest events it named; where that is believed, with what led to them.
    theirs: HashSet<OwnedEventId>,
    /// Where it came in, and what led to that. It has the state of then, and no use for the events: they are told as missing
    /// where the earliest are not known here, or a branch went around them, and a server that takes them for new resolves the
    /// room's state with that of its first days.
    before: HashSet<OwnedEventId>,
    /// Whether who has an event has what led to it. Not so for who took an event with a state that it was given.
    whole: bool,
}

impl Known<'_> {
    fn has(&self, id: &EventId) -> bool {
        self.before.contains(id) || (self.theirs.contains(id) && !self.latest.contains(id))
    }

    /// What led to an event that it has, it has too; whether that is so.
    fn note(&mut self, event: &EventRef) -> bool {
        let prevs = event.pdu.prev_events().iter().cloned();
        if self.before.contains(event.id()) {
            self.before.extend(prevs);
            return true;
        }
        if self.whole {
            self.theirs.extend(prevs);
        }
        self.whole
    }
}

/// The events that lead to the latest and not to the earliest, the nearest to the latest if there are too many; oldest first.
/// Where there is none, what led to the latest was passed over for the sake of the earliest: then these alone are left out.
fn missing_between(reader: &Reader<'_>, request: &MissingRequest) -> Result<Vec<EventRef>, Error> {
    let arrival = reader.arrival()?;
    let found = walk_back(reader, request, arrival.as_ref(), true)?;
    if found.is_empty() { walk_back(reader, request, arrival.as_ref(), false) } else { Ok(found) }
}

/// From the deepest on: so what leads to the earliest is known for such before it is reached, and the way never jumps over
/// an old end of the graph.
fn walk_back(
    reader: &Reader<'_>,
    request: &MissingRequest,
    arrival: Option<&OwnedEventId>,
    whole: bool,
) -> Result<Vec<EventRef>, Error> {
    let limit = bounded(request.limit, 10);
    let min_depth = request.min_depth.unwrap_or(0);
    let latest: HashSet<&EventId> = request.latest_events.iter().take(MAX_STARTS).map(|id| &**id).collect();
    let theirs: HashSet<_> = request.earliest_events.iter().take(MAX_STARTS).cloned().collect();
    let mut seen = HashSet::new();
    let mut heap = BinaryHeap::new();
    // Whose history does not count need not be walked through.
    let earliest = theirs.iter().filter(|_| whole);
    for id in latest.iter().copied().chain(earliest.chain(arrival).map(|id| &**id)) {
        if seen.insert(id.to_owned()) {
            heap.extend(reader.find_step(id)?.map(Deep));
        }
    }
    let mut known = Known { latest, theirs, before: arrival.into_iter().cloned().collect(), whole };
    let mut found: Vec<EventRef> = Vec::new();
    let mut looked_at = 0_usize;
    while let Some(Deep(event)) = heap.pop() {
        looked_at = looked_at.saturating_add(1);
        if found.len() >= limit || looked_at > MAX_LOOKED_AT {
            break;
        }
        let is_known = known.has(event.id());
        if is_known {
            if heap.iter().all(|Deep(other)| known.has(other.id())) {
                break;
            }
            if !known.note(&event) {
                continue;
            }
        } else if event.record.status != Status::Rejected && !known.latest.contains(event.id()) {
            found.push(event.clone());
        }
        for prev in event.pdu.prev_events() {
            if seen.insert(prev.clone()) {
                heap.extend(reader.find_step(prev)?.filter(|prev| prev.pdu.depth() >= min_depth).map(Deep));
            }
        }
    }
    found.sort_by_key(|event| (event.pdu.depth(), event.record.timeline));
    Ok(found)
}

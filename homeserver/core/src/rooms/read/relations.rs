//! Events that relate to an event (Client-Server API, "Relationships API", "Aggregations of child events").

use std::collections::BTreeMap;

use ruma::{EventId, OwnedEventId, RoomId, UserId};
use serde::Serialize;
use serde_json::{
    Map, Value, json,
    value::{RawValue, to_raw_value},
};

use super::token::{Direction, Gap};
use crate::{
    Core, Error, Requester,
    rooms::{EventRef, StoredEvent, append::RelationRow},
};

/// The most relations on one page.
const MAX_LIMIT: usize = 100;
/// Relations on a page if the client names no number.
const DEFAULT_LIMIT: usize = 20;
/// How deep a client may look into relations of relations.
const MAX_DEPTH: u64 = 3;
/// How many events one recursive question looks at.
const MAX_LOOKED_AT: usize = 2_000;
/// How many references are bundled with one event.
const MAX_REFERENCES: usize = 100;

/// What a client asks.
#[derive(Clone, Debug, Default)]
pub struct RelationsRequest {
    /// Only this relation.
    pub rel_type: Option<String>,
    /// Only events of this type.
    pub kind: Option<String>,
    /// Where to begin.
    pub from: Option<Gap>,
    /// Where to end.
    pub to: Option<Gap>,
    /// In which direction.
    pub direction: Direction,
    /// At most so many.
    pub limit: Option<u64>,
    /// Relations of the relations, too.
    pub recurse: bool,
}

/// A page of relations.
#[derive(Debug, Serialize)]
pub struct RelationsPage {
    /// The events, in the direction that was asked for.
    pub chunk: Vec<Box<RawValue>>,
    /// Where to go on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_batch: Option<String>,
    /// Where this began, if not at an end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prev_batch: Option<String>,
    /// How deep this looked, if asked to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recursion_depth: Option<u64>,
}

impl Core {
    /// A page of the events that relate to the event, as the user may see them.
    ///
    /// # Errors
    /// [`Error::NotFound`] for an event that is unknown or not for this user.
    pub fn related_events(
        &self,
        requester: &Requester,
        room: &RoomId,
        target: &EventId,
        request: &RelationsRequest,
    ) -> Result<RelationsPage, Error> {
        let user = &requester.user_id;
        self.visible_event(user, room, target)?;
        let limit = request.limit.map_or(DEFAULT_LIMIT, |limit| usize::try_from(limit).unwrap_or(MAX_LIMIT));
        let limit = limit.clamp(1, MAX_LIMIT);
        let found = self.relations_below(room, target, if request.recurse { MAX_DEPTH } else { 1 })?;
        let backward = request.direction == Direction::Backward;
        let (low, high) = if backward {
            (request.to.unwrap_or(Gap::START), request.from.unwrap_or(Gap::END))
        } else {
            (request.from.unwrap_or(Gap::START), request.to.unwrap_or(Gap::END))
        };
        let in_range = found.range(low.0..high.0).map(|(order, row)| (*order, row));
        let ordered: Vec<_> = if backward { in_range.rev().collect() } else { in_range.collect() };
        let mut events = Vec::new();
        let mut next = None;
        let mut last = None;
        for (order, row) in ordered {
            let fits = request.rel_type.as_ref().is_none_or(|wanted| row.rel_type == *wanted)
                && request.kind.as_ref().is_none_or(|wanted| row.kind == *wanted);
            if !fits {
                continue;
            }
            let Some(event) = self.related_event(user, &row.event_id)? else { continue };
            if events.len() >= limit {
                next = last.map(|last| if backward { Gap(last) } else { Gap::after(last) });
                break;
            }
            last = Some(order);
            events.push(event);
        }
        Ok(RelationsPage {
            chunk: self.for_client(requester, &events)?,
            next_batch: next.map(|gap| gap.to_string()),
            prev_batch: request.from.map(|gap| gap.to_string()),
            recursion_depth: request.recurse.then_some(MAX_DEPTH),
        })
    }

    /// The relations of an event, and theirs, by place.
    fn relations_below(
        &self,
        room: &RoomId,
        target: &EventId,
        depth: u64,
    ) -> Result<BTreeMap<u64, RelationRow>, Error> {
        let mut found = BTreeMap::new();
        let mut level: Vec<OwnedEventId> = vec![target.to_owned()];
        for _ in 0..depth {
            let mut below = Vec::new();
            for parent in &level {
                for (order, row) in self.relations_to(room, parent)? {
                    if found.len() >= MAX_LOOKED_AT {
                        return Ok(found);
                    }
                    // A rich reply is no relation of its own.
                    if !row.rel_type.is_empty() && row.event_id != target && found.insert(order, row.clone()).is_none()
                    {
                        below.push(row.event_id);
                    }
                }
            }
            level = below;
        }
        Ok(found)
    }

    /// The related event, if it still says what it said, and the user may see it.
    fn related_event(&self, user: &UserId, id: &EventId) -> Result<Option<EventRef>, Error> {
        let Some(event) = self.load_event(id)? else { return Ok(None) };
        if event.content_gone || event.record.redacted_by.is_some() || !self.can_see_event(user, &event)? {
            return Ok(None);
        }
        Ok(Some(event))
    }

    /// What is bundled with an event: its latest edit, its thread, references to it. `None`: nothing.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(super) fn bundled(
        &self,
        event: &StoredEvent,
        viewer: &UserId,
        with_thread: bool,
    ) -> Result<Option<Box<RawValue>>, Error> {
        if event.unrelated.get() {
            return Ok(None);
        }
        let generation = self.rooms.relation_generation();
        let relations = self.relations_to(event.pdu.room_id(), event.id())?;
        if relations.is_empty() {
            self.rooms.remember_unrelated(generation, event);
            return Ok(None);
        }
        let mut bundle = Map::new();
        if event.record.redacted_by.is_none()
            && !event.pdu.is_state()
            && let Some(edit) = self.latest_edit(event, viewer, &relations)?
        {
            bundle.insert("m.replace".to_owned(), edit);
        }
        if with_thread && let Some(thread) = self.thread_summary(event, viewer, &relations)? {
            bundle.insert("m.thread".to_owned(), thread);
        }
        let mut references = Vec::new();
        for (_, row) in relations.iter().filter(|(_, row)| row.rel_type == "m.reference").take(MAX_REFERENCES) {
            if let Some(event) = self.related_event(viewer, &row.event_id)? {
                references.push(json!({"event_id": event.id()}));
            }
        }
        if !references.is_empty() {
            bundle.insert("m.reference".to_owned(), json!({"chunk": references}));
        }
        if bundle.is_empty() {
            return Ok(None);
        }
        to_raw_value(&bundle).map(Some).map_err(|error| Error::internal(error.to_string()))
    }

    /// SPEC: v1.19 Client-Server API, "Event replacements": same sender, same type, new content; the latest by time, then by id.
    fn latest_edit(
        &self,
        event: &StoredEvent,
        viewer: &UserId,
        relations: &[(u64, RelationRow)],
    ) -> Result<Option<Value>, Error> {
        let mut latest: Option<EventRef> = None;
        for (_, row) in relations {
            if row.rel_type != "m.replace" || row.sender != event.pdu.sender() || row.kind != event.pdu.kind() {
                continue;
            }
            let Some(edit) = self.related_event(viewer, &row.event_id)? else { continue };
            let valid = !edit.pdu.is_state()
                && (edit.pdu.kind() == "m.room.encrypted" || edit.pdu.content_value().get("m.new_content").is_some());
            let rank = |event: &EventRef| (event.pdu.origin_server_ts_ms(), event.id().to_owned());
            if valid && latest.as_ref().is_none_or(|latest| rank(&edit) > rank(latest)) {
                latest = Some(edit);
            }
        }
        latest.map(|edit| self.bundled_event(&edit, viewer)).transpose()
    }

    fn thread_summary(
        &self,
        root: &StoredEvent,
        viewer: &UserId,
        relations: &[(u64, RelationRow)],
    ) -> Result<Option<Value>, Error> {
        let ignored = self.ignored_users(viewer)?;
        let mut count = 0_u64;
        let mut participated = root.pdu.sender() == viewer;
        let mut latest = None;
        for (_, row) in relations.iter().filter(|(_, row)| row.rel_type == "m.thread") {
            if ignored.contains(&row.sender) {
                continue;
            }
            let Some(event) = self.related_event(viewer, &row.event_id)? else { continue };
            count = count.saturating_add(1);
            participated |= event.pdu.sender() == viewer;
            latest = Some(event);
        }
        let Some(latest) = latest else { return Ok(None) };
        Ok(Some(json!({
            "latest_event": self.bundled_event(&latest, viewer)?,
            "count": count,
            "current_user_participated": participated,
        })))
    }

    /// An event inside of another's bundle.
    fn bundled_event(&self, event: &EventRef, viewer: &UserId) -> Result<Value, Error> {
        let relations = self.bundled(event, viewer, false)?;
        let unsigned = matron_room::Unsigned { relations, ..matron_room::Unsigned::default() };
        let raw = matron_room::client_event(&event.pdu, &unsigned);
        serde_json::from_str(raw.get()).map_err(|error| Error::internal(error.to_string()))
    }
}

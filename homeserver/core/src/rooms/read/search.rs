//! `POST /search`: messages of this server that hold words, in rooms that the user is or was in.
//!
//! Content is sealed on disk, so there is no index of words: a search opens a bounded number of events. End-to-end
//! encrypted messages are found by clients, not here.

use std::collections::{BTreeMap, BTreeSet};

use matron_room::Membership;
use ruma::{OwnedRoomId, RoomId, UserId};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json, value::RawValue};

use super::token::{Direction, Gap, Stretch};
use crate::{Core, Error, Requester, accounts::EventFilter, rooms::EventRef};

/// How many events are looked at in all.
const MAX_LOOKED_AT: usize = 20_000;
/// How many results are kept before they are ordered.
const MAX_RESULTS: usize = 2_000;
/// The most results on one page.
const MAX_LIMIT: usize = 100;
/// Results on a page if the client names no number.
const DEFAULT_LIMIT: usize = 10;
/// The most events around a result.
const MAX_CONTEXT: u64 = 20;
/// How many predecessors of a room are searched too.
const MAX_PREDECESSORS: usize = 10;

/// What a client asks.
#[derive(Debug, Deserialize)]
pub struct SearchRequest {
    search_categories: Categories,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Categories {
    room_events: Option<Criteria>,
}

#[derive(Debug, Deserialize)]
struct Criteria {
    search_term: String,
    #[serde(default)]
    keys: Option<BTreeSet<String>>,
    #[serde(default)]
    filter: EventFilter,
    #[serde(default)]
    order_by: Option<String>,
    #[serde(default)]
    event_context: Option<Context>,
    #[serde(default)]
    include_state: bool,
    #[serde(default)]
    groupings: Groupings,
}

#[derive(Debug, Deserialize)]
#[serde(default)]
struct Context {
    before_limit: u64,
    after_limit: u64,
    include_profile: bool,
}

impl Default for Context {
    fn default() -> Self {
        Self { before_limit: 5, after_limit: 5, include_profile: false }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Groupings {
    group_by: Vec<Grouping>,
}

#[derive(Debug, Deserialize)]
struct Grouping {
    key: String,
}

/// What was found.
#[derive(Debug, Serialize)]
pub struct SearchAnswer {
    search_categories: BTreeMap<&'static str, RoomEvents>,
}

#[derive(Debug, Default, Serialize)]
struct RoomEvents {
    count: usize,
    highlights: BTreeSet<String>,
    results: Vec<SearchResult>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    state: BTreeMap<OwnedRoomId, Vec<Box<RawValue>>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    groups: BTreeMap<String, BTreeMap<String, Group>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_batch: Option<String>,
}

#[derive(Debug, Serialize)]
struct SearchResult {
    rank: u32,
    result: Box<RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    context: Option<Value>,
}

#[derive(Debug, Default, Serialize)]
struct Group {
    order: usize,
    results: Vec<String>,
}

struct Hit {
    rank: u32,
    event: EventRef,
}

impl Core {
    /// Messages with all of the words.
    ///
    /// # Errors
    /// [`Error::InvalidParam`] for a token that is none, or an empty search.
    pub fn search(
        &self,
        requester: &Requester,
        request: &SearchRequest,
        next_batch: Option<&str>,
    ) -> Result<SearchAnswer, Error> {
        let Some(criteria) = &request.search_categories.room_events else {
            return Ok(SearchAnswer { search_categories: BTreeMap::new() });
        };
        let words: BTreeSet<String> = words_of(&criteria.search_term).collect();
        if words.is_empty() {
            return Err(Error::invalid("`search_term` holds no word"));
        }
        let offset = match next_batch.filter(|token| !token.is_empty()) {
            Some(token) => token.parse::<usize>().map_err(|_| Error::invalid("this is not a token of this server"))?,
            None => 0,
        };
        let by_rank = criteria.order_by.as_deref() != Some("recent");
        let mut hits = Vec::new();
        let mut budget = MAX_LOOKED_AT;
        for room in self.searchable_rooms(&requester.user_id, criteria)? {
            if budget == 0 {
                break;
            }
            self.search_room(&requester.user_id, &room, criteria, &words, &mut hits, &mut budget)?;
        }
        hits.sort_by_key(|hit| {
            let newest = (u64::MAX - hit.event.pdu.origin_server_ts_ms(), u64::MAX - hit.event.record.timeline);
            (if by_rank { u32::MAX - hit.rank } else { 0 }, newest)
        });
        let limit = criteria.filter.limit.map_or(DEFAULT_LIMIT, |limit| usize::try_from(limit).unwrap_or(MAX_LIMIT));
        let limit = limit.clamp(1, MAX_LIMIT);
        let count = hits.len();
        let page: Vec<Hit> = hits.into_iter().skip(offset).take(limit).collect();
        let end = offset.saturating_add(page.len());
        let mut answer = RoomEvents {
            count,
            highlights: words,
            next_batch: (end < count).then(|| end.to_string()),
            ..RoomEvents::default()
        };
        for hit in &page {
            self.add_result(requester, criteria, hit, &mut answer)?;
        }
        Ok(SearchAnswer { search_categories: BTreeMap::from([("room_events", answer)]) })
    }

    fn searchable_rooms(&self, user: &UserId, criteria: &Criteria) -> Result<Vec<OwnedRoomId>, Error> {
        let mut rooms = Vec::new();
        for (room, standing) in self.user_rooms(user)?.iter() {
            let seen = matches!(standing.membership, Membership::Join | Membership::Leave | Membership::Ban);
            if !seen || standing.forgotten {
                continue;
            }
            if criteria.filter.allows_room(room) {
                rooms.push(room.clone());
            }
        }
        // What a room replaced is searched with it.
        let mut with_predecessors: BTreeSet<OwnedRoomId> = rooms.iter().cloned().collect();
        for room in rooms {
            let mut at = room;
            for _ in 0..MAX_PREDECESSORS {
                let Some(before) = self.predecessor_of(&at)? else { break };
                if !with_predecessors.insert(before.clone()) {
                    break;
                }
                at = before;
            }
        }
        Ok(with_predecessors.into_iter().collect())
    }

    fn predecessor_of(&self, room: &RoomId) -> Result<Option<OwnedRoomId>, Error> {
        let Some(room) = self.find_room(room)? else { return Ok(None) };
        let create: Option<Value> = room.lock().state_content(self, "m.room.create", "")?;
        Ok(create.and_then(|create| create.get("predecessor")?.get("room_id")?.as_str()?.try_into().ok()))
    }

    fn search_room(
        &self,
        user: &UserId,
        room: &RoomId,
        criteria: &Criteria,
        words: &BTreeSet<String>,
        hits: &mut Vec<Hit>,
        budget: &mut usize,
    ) -> Result<(), Error> {
        let Ok(sight) = self.sight_of(user, room) else { return Ok(()) };
        let filter = EventFilter { rooms: None, not_rooms: Vec::new(), ..criteria.filter.clone() };
        let stretch = Stretch { room, from: Gap::START, to: sight };
        let mut ranks = Vec::new();
        let left = MAX_RESULTS.saturating_sub(hits.len());
        let found = self.events_where(stretch, Direction::Backward, left, |event| {
            if *budget == 0 || event.content_gone {
                return Ok(false);
            }
            *budget -= 1;
            let Some(text) = searched_text(event, criteria.keys.as_ref()) else { return Ok(false) };
            let rank = rank_of(&text, words);
            if rank == 0 || !self.filter_allows(&filter, event)? || !self.can_see_event(user, event)? {
                return Ok(false);
            }
            ranks.push(rank);
            Ok(true)
        })?;
        hits.extend(found.events.into_iter().zip(ranks).map(|(event, rank)| Hit { rank, event }));
        Ok(())
    }

    fn add_result(
        &self,
        requester: &Requester,
        criteria: &Criteria,
        hit: &Hit,
        answer: &mut RoomEvents,
    ) -> Result<(), Error> {
        let room = hit.event.pdu.room_id();
        let context = match &criteria.event_context {
            Some(context) => Some(self.search_context(requester, hit, context)?),
            None => None,
        };
        if criteria.include_state && !answer.state.contains_key(room) {
            let state = self.room_state(&requester.user_id, room)?;
            answer.state.insert(room.to_owned(), self.for_client(requester, &state)?);
        }
        for grouping in &criteria.groupings.group_by {
            let value = match grouping.key.as_str() {
                "room_id" => room.as_str(),
                "sender" => hit.event.pdu.sender().as_str(),
                _ => continue,
            };
            let groups = answer.groups.entry(grouping.key.clone()).or_default();
            let order = groups.len();
            let group = groups.entry(value.to_owned()).or_insert_with(|| Group { order, results: Vec::new() });
            group.results.push(hit.event.id().to_string());
        }
        let result = self.client_event_for(&hit.event, &requester.user_id, requester.device_id.as_deref(), true)?;
        answer.results.push(SearchResult { rank: hit.rank, result, context });
        Ok(())
    }

    fn search_context(&self, requester: &Requester, hit: &Hit, wanted: &Context) -> Result<Value, Error> {
        let bounded = |limit: u64| usize::try_from(limit.min(MAX_CONTEXT)).unwrap_or(0);
        let around = self.around(
            &requester.user_id,
            &hit.event,
            bounded(wanted.before_limit),
            bounded(wanted.after_limit),
            &EventFilter::default(),
        )?;
        let mut context = json!({
            "start": around.start.to_string(),
            "end": around.end.to_string(),
            "events_before": self.for_client(requester, &around.before)?,
            "events_after": self.for_client(requester, &around.after)?,
        });
        if wanted.include_profile {
            let mut all = vec![hit.event.clone()];
            all.extend(around.before);
            all.extend(around.after);
            let mut profiles = serde_json::Map::new();
            for member in self.members_for(&all)? {
                let content = member.pdu.content_value();
                let Some(user) = member.pdu.state_key() else { continue };
                let told = ["displayname", "avatar_url"].into_iter().filter_map(|field| {
                    let value = content.get(field).filter(|value| value.is_string())?;
                    Some((field.to_owned(), value.clone()))
                });
                profiles.insert(user.to_owned(), Value::Object(told.collect()));
            }
            if let Value::Object(context) = &mut context {
                context.insert("profile_info".to_owned(), Value::Object(profiles));
            }
        }
        Ok(context)
    }
}

fn words_of(text: &str) -> impl Iterator<Item = String> + '_ {
    text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).map(str::to_lowercase)
}

/// The text of an event in which words are looked for.
fn searched_text(event: &EventRef, keys: Option<&BTreeSet<String>>) -> Option<String> {
    let (key, field) = match event.pdu.kind() {
        "m.room.message" => ("content.body", "body"),
        "m.room.name" => ("content.name", "name"),
        "m.room.topic" => ("content.topic", "topic"),
        _ => return None,
    };
    if keys.is_some_and(|keys| !keys.contains(key)) {
        return None;
    }
    event.pdu.content_value().get(field)?.as_str().map(str::to_lowercase)
}

/// How often the words stand in the text; 0 unless all of them do.
fn rank_of(text: &str, words: &BTreeSet<String>) -> u32 {
    let mut counts: BTreeMap<&str, u32> = words.iter().map(|word| (word.as_str(), 0)).collect();
    for word in words_of(text) {
        if let Some(count) = counts.get_mut(word.as_str()) {
            *count = count.saturating_add(1);
        }
    }
    if counts.values().any(|count| *count == 0) {
        0
    } else {
        counts.values().fold(0, |sum, count| sum.saturating_add(*count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_words_must_stand_in_the_text_as_words() {
        let words: BTreeSet<String> = words_of("Blood, count").collect();
        assert_eq!(rank_of("the blood count: count 3", &words), 3);
        assert_eq!(rank_of("bloodcount", &words), 0);
        assert_eq!(rank_of("blood", &words), 0);
    }
}

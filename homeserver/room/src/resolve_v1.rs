//! State resolution of room version 1.
//!
//! Spec: <https://spec.matrix.org/v1.19/rooms/v1/#state-resolution>.

use std::collections::{BTreeMap, BTreeSet};

use ruma::{EventId, OwnedEventId};
use sha1::{Digest, Sha1};

use crate::{
    auth::check_auth,
    pdu::Pdu,
    resolve::{StateKey, StateMap},
};

type Conflicts = BTreeMap<StateKey, Vec<Pdu>>;

/// The resolved state of version 1. Conflicting events that `fetch` does not find have no say.
pub(crate) fn resolve(state_sets: &[StateMap], fetch: impl Fn(&EventId) -> Option<Pdu>) -> StateMap {
    let (mut resolved, mut conflicts) = separate(state_sets, &fetch);

    for kind in ["m.room.power_levels", "m.room.join_rules", "m.room.member"] {
        // Members are judged by the state before the pass, not by each other: the order of keys must not matter.
        let settled = resolved.clone();
        let (of_kind, rest): (Conflicts, Conflicts) = conflicts.into_iter().partition(|(key, _)| key.0 == kind);
        conflicts = rest;
        for (key, events) in of_kind {
            if let Some(winner) = last_allowed(events, &settled, &fetch) {
                resolved.insert(key, winner);
            }
        }
    }
    let settled = resolved.clone();
    for (key, events) in conflicts {
        if let Some(winner) = deepest_allowed(events, &settled, &fetch) {
            resolved.insert(key, winner);
        }
    }
    resolved
}

/// The keys on which the states do not disagree, and the events of those on which they do. A key that only some states
/// have is no disagreement.
fn separate(state_sets: &[StateMap], fetch: impl Fn(&EventId) -> Option<Pdu>) -> (StateMap, Conflicts) {
    let mut candidates: BTreeMap<&StateKey, BTreeSet<&OwnedEventId>> = BTreeMap::new();
    for (key, id) in state_sets.iter().flatten() {
        candidates.entry(key).or_default().insert(id);
    }
    let mut agreed = StateMap::new();
    let mut conflicts = Conflicts::new();
    for (key, ids) in candidates {
        match (ids.len(), ids.first()) {
            (1, Some(id)) => {
                agreed.insert(key.clone(), (*id).clone());
            }
            _ => {
                conflicts.insert(key.clone(), ids.into_iter().filter_map(|id| fetch(id)).collect());
            }
        }
    }
    (agreed, conflicts)
}

/// Ascending depth, then descending SHA-1 of the event id.
fn sort_oldest_first(events: &mut [Pdu]) {
    events.sort_by_cached_key(|event| {
        let digest: [u8; 20] = Sha1::digest(event.event_id().as_bytes()).into();
        (event.depth(), std::cmp::Reverse(digest))
    });
}

/// Walks from the shallowest event for as long as each is allowed after the one before; the last allowed wins.
fn last_allowed(
    mut events: Vec<Pdu>,
    settled: &StateMap,
    fetch: impl Fn(&EventId) -> Option<Pdu>,
) -> Option<OwnedEventId> {
    sort_oldest_first(&mut events);
    let mut events = events.into_iter();
    let mut winner = events.next()?;
    for event in events {
        let allowed = check_auth(&event, |kind, key| {
            if winner.is_state_of(kind, key) {
                return Some(winner.clone());
            }
            fetch(settled.get(&(kind.to_owned(), key.to_owned()))?)
        });
        if allowed.is_err() {
            break;
        }
        winner = event;
    }
    Some(winner.event_id().to_owned())
}

/// The deepest event that is allowed; the shallowest if none is.
fn deepest_allowed(
    mut events: Vec<Pdu>,
    settled: &StateMap,
    fetch: impl Fn(&EventId) -> Option<Pdu>,
) -> Option<OwnedEventId> {
    sort_oldest_first(&mut events);
    let state = |kind: &str, key: &str| fetch(settled.get(&(kind.to_owned(), key.to_owned()))?);
    let allowed = events.iter().rev().find(|event| check_auth(event, state).is_ok());
    Some(allowed.or(events.first())?.event_id().to_owned())
}

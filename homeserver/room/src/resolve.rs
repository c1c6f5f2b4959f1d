//! State resolution: one state from the states of several forks.
//!
//! Version 2 and 2.1 run on `ruma_state_res`, to which this file lends the conflicted state subgraph; version 1 is ours.
//! Spec: <https://spec.matrix.org/v1.19/rooms/v2/#state-resolution>, <https://spec.matrix.org/v1.19/rooms/v12/#state-resolution>.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use ruma::{
    EventId, OwnedEventId,
    events::StateEventType,
    room_version_rules::StateResolutionVersion,
    state_res::{self, utils::event_id_set::EventIdSet},
};
use thiserror::Error;

use crate::{pdu::Pdu, resolve_v1, version::RoomVersion};

/// A state event's type and state key.
pub type StateKey = (String, String);
/// A room's state: which event holds each key.
pub type StateMap = BTreeMap<StateKey, OwnedEventId>;

/// Why states cannot be resolved; the caller keeps the state that it has.
#[derive(Debug, Error)]
pub enum ResolveError {
    /// An event that the algorithm needs is unknown or malformed.
    #[error("an event needed for state resolution is missing or malformed")]
    Events(#[source] state_res::Error),
}

/// The state on which every server agrees that has these states and events, whatever order they came in.
///
/// `auth_chains` holds, for each state set, the auth chain of all its events; what all of them share may be left out. `fetch` finds an accepted event by id;
/// rejected and unknown events are `None` and have no say.
///
/// # Errors
/// [`ResolveError`] when an accepted event's auth chain has holes.
pub fn resolve(
    version: &'static RoomVersion,
    state_sets: &[StateMap],
    auth_chains: Vec<BTreeSet<OwnedEventId>>,
    fetch: impl Fn(&EventId) -> Option<Pdu>,
) -> Result<StateMap, ResolveError> {
    if let [only] = state_sets {
        return Ok(only.clone());
    }
    let StateResolutionVersion::V2(rules) = &version.rules.state_res else {
        return Ok(resolve_v1::resolve(state_sets, fetch));
    };
    let maps: Vec<state_res::StateMap<OwnedEventId>> = state_sets
        .iter()
        .map(|set| {
            set.iter()
                .map(|((kind, key), id)| ((StateEventType::from(kind.as_str()), key.clone()), id.clone()))
                .collect()
        })
        .collect();
    let chains = auth_chains.into_iter().map(|chain| chain.into_iter().collect()).collect();
    let resolved = state_res::resolve(&version.rules.authorization, rules, &maps, chains, &fetch, |conflicted| {
        let conflicted: BTreeSet<OwnedEventId> = conflicted.values().flatten().cloned().collect();
        Some(conflicted_subgraph(&conflicted, &fetch))
    })
    .map_err(ResolveError::Events)?;
    Ok(resolved.into_iter().map(|((kind, key), id)| ((kind.to_string(), key), id)).collect())
}

/// The events on the auth paths between any two conflicted events, these included.
///
/// Spec: <https://spec.matrix.org/v1.19/rooms/v12/#state-resolution>.
fn conflicted_subgraph(
    conflicted: &BTreeSet<OwnedEventId>,
    fetch: impl Fn(&EventId) -> Option<Pdu>,
) -> EventIdSet<OwnedEventId> {
    // Walked from conflicted events only, so whatever is visited lies below one; what remains is whether it lies
    // above one. An explicit stack: auth chains are as deep as a room is old.
    let mut reaches: HashMap<OwnedEventId, bool> = HashMap::new();
    let mut stack: Vec<(OwnedEventId, bool)> = conflicted.iter().map(|id| (id.clone(), false)).collect();
    while let Some((id, children_done)) = stack.pop() {
        if reaches.contains_key(&id) && !children_done {
            continue;
        }
        let Some(event) = fetch(&id) else {
            reaches.insert(id, false);
            continue;
        };
        if children_done {
            let reaching = conflicted.contains(&id)
                || event.auth_events().iter().any(|parent| reaches.get(parent).copied().unwrap_or(false));
            reaches.insert(id, reaching);
            continue;
        }
        // Marked before its parents are, so that a malformed cycle ends.
        reaches.insert(id.clone(), false);
        stack.push((id, true));
        stack.extend(
            event.auth_events().iter().filter(|parent| !reaches.contains_key(*parent)).map(|p| (p.clone(), false)),
        );
    }
    reaches.into_iter().filter_map(|(id, reaching)| reaching.then_some(id)).collect()
}

#[cfg(test)]
mod tests {
    use ruma::{owned_room_id, owned_user_id, server_name};
    use serde_json::json;

    use super::*;
    use crate::{draft::DraftPdu, key::SigningKey};

    /// An event whose auth events are these.
    fn event(auth: &[&Pdu]) -> Pdu {
        let room_id = owned_room_id!("!room:x");
        let mut draft = DraftPdu::new(Some(room_id), owned_user_id!("@a:x"), "m.x", json!({}));
        draft.auth_events = auth.iter().map(|pdu| pdu.event_id().to_owned()).collect();
        draft.depth = auth.iter().map(|pdu| pdu.depth()).max().unwrap_or(0) + 1;
        let version = RoomVersion::find("11").unwrap();
        draft.seal(version, &SigningKey::generate([1; 32]), server_name!("x")).unwrap()
    }

    #[test]
    fn subgraph_is_what_lies_on_paths_between_conflicted_events() {
        let root = event(&[]);
        let below = event(&[&root]);
        let middle = event(&[&below, &root]);
        let above = event(&[&middle]);
        let aside = event(&[&root, &above]);
        let all = [&root, &below, &middle, &above, &aside];
        let fetch = |id: &EventId| all.iter().find(|pdu| pdu.event_id() == id).map(|pdu| (*pdu).clone());
        let subgraph = |conflicted: &[&Pdu]| -> BTreeSet<OwnedEventId> {
            let conflicted = conflicted.iter().map(|pdu| pdu.event_id().to_owned()).collect();
            conflicted_subgraph(&conflicted, fetch).into_iter().collect()
        };
        let ids =
            |pdus: &[&Pdu]| -> BTreeSet<OwnedEventId> { pdus.iter().map(|pdu| pdu.event_id().to_owned()).collect() };
        assert_eq!(subgraph(&[&below, &above]), ids(&[&below, &middle, &above]));
        assert_eq!(subgraph(&[&above, &below]), ids(&[&below, &middle, &above]));
        assert_eq!(subgraph(&[&root, &aside]), ids(&all));
        assert_eq!(subgraph(&[&middle]), ids(&[&middle]));
        assert!(subgraph(&[]).is_empty());
    }

    #[test]
    fn deep_auth_chains_do_not_exhaust_the_stack() {
        let mut chain = vec![event(&[])];
        for _ in 0..5_000 {
            let next = event(&[chain.last().unwrap()]);
            chain.push(next);
        }
        let by_id: HashMap<OwnedEventId, Pdu> =
            chain.iter().map(|pdu| (pdu.event_id().to_owned(), pdu.clone())).collect();
        let ends = [chain.first().unwrap(), chain.last().unwrap()];
        let ends = ends.iter().map(|pdu| pdu.event_id().to_owned()).collect();
        assert_eq!(conflicted_subgraph(&ends, |id| by_id.get(id).cloned()).len(), chain.len());
    }
}

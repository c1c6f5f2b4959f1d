//! The state before and after an event, and of several ends of the graph together.

use std::{collections::BTreeSet, sync::Arc};

use matron_room::{Pdu, RoomVersion, auth_types_for, resolve};
use matron_storage::Batch;
use ruma::{EventId, OwnedEventId};

use crate::{
    Core, Error,
    federation::graph::ChainOf,
    rooms::{GroupId, StateKey, StateMap, Status, StoredEvent, state_map::difference},
};

/// A state and its name.
#[derive(Clone, Debug, Default)]
pub struct NamedState {
    /// The state.
    pub state: StateMap,
    /// Its name; written by the batch that it was made with.
    pub group: GroupId,
}

impl Core {
    /// The state after the event: the state before it and, unless it was rejected, itself. What is new goes into the batch.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(crate) fn state_after(&self, batch: &mut Batch, event: &StoredEvent) -> Result<NamedState, Error> {
        let before = self.load_state_group(event.record.state_before)?;
        let group = event.record.state_before;
        let Some(key) = event.pdu.state_key().filter(|_| event.record.status != Status::Rejected) else {
            return Ok(NamedState { state: before, group });
        };
        let key = StateKey::new(event.pdu.kind(), key);
        let id = Arc::new(event.id().to_owned());
        if before.get(&key) == Some(&id) {
            return Ok(NamedState { state: before, group });
        }
        let mut state = before;
        state.insert(key.clone(), Arc::clone(&id));
        let group = self.write_state_group(batch, group, &[(key, Some(id))], &state)?;
        Ok(NamedState { state, group })
    }

    /// The one state that follows from several, by the room version's algorithm. What is new goes into the batch.
    ///
    /// # Errors
    /// [`Error::Store`]; [`Error::Internal`] when an event that the algorithm needs is missing.
    pub(crate) fn resolve_states(
        &self,
        batch: &mut Batch,
        version: &'static RoomVersion,
        states: Vec<NamedState>,
    ) -> Result<NamedState, Error> {
        self.resolve_states_with(batch, version, states, None)
    }

    /// As [`Core::resolve_states`], where one of the states holds an event that the batch has yet to store: to the
    /// algorithm an event that cannot be loaded has no say.
    ///
    /// # Errors
    /// As [`Core::resolve_states`].
    pub(crate) fn resolve_states_with(
        &self,
        batch: &mut Batch,
        version: &'static RoomVersion,
        states: Vec<NamedState>,
        arriving: Option<&Pdu>,
    ) -> Result<NamedState, Error> {
        let mut distinct: Vec<NamedState> = Vec::new();
        for state in states {
            if !distinct.iter().any(|other| other.group == state.group || other.state == state.state) {
                distinct.push(state);
            }
        }
        let first = distinct.first().cloned().unwrap_or_default();
        if distinct.len() < 2 {
            return Ok(first);
        }
        let resolved = self.resolve_maps(version, &first.state, distinct.iter().map(|named| &named.state), arriving)?;
        let changes = difference(&first.state, &resolved);
        let group = self.write_state_group(batch, first.group, &changes, &resolved)?;
        Ok(NamedState { state: resolved, group })
    }

    /// The state that follows from these, as what it changes of the first of them: it shares the rest, as memory keeps many
    /// states of a room.
    fn resolve_maps<'a>(
        &self,
        version: &'static RoomVersion,
        first: &StateMap,
        states: impl Iterator<Item = &'a StateMap> + Clone,
        arriving: Option<&Pdu>,
    ) -> Result<StateMap, Error> {
        let conflicted: BTreeSet<StateKey> =
            states.clone().flat_map(|state| difference(first, state)).map(|(key, _)| key).collect();
        let asked: Vec<ChainOf> = states.clone().map(|state| self.chain_of(state, arriving)).collect();
        let chains = self.parted_chains(&asked)?;
        let fetch = |id: &EventId| {
            if let Some(pdu) = arriving.filter(|pdu| pdu.event_id() == id) {
                return Some(pdu.clone());
            }
            let known = self.rooms.under_way(id).or_else(|| self.load_event(id).ok().flatten());
            known.filter(|event| event.is_usable()).map(|event| event.pdu.clone())
        };
        // Whoever has no part in what conflicts is left out: of ten thousand members that no event names, nothing is asked.
        let disputed = states.clone().flat_map(|state| conflicted.iter().filter_map(|key| state.get(key)));
        let disputed: BTreeSet<&EventId> =
            disputed.map(|id| &***id).chain(chains.iter().flatten().map(|id| &**id)).collect();
        let named: BTreeSet<String> = disputed.into_iter().filter_map(&fetch).flat_map(|pdu| users_of(&pdu)).collect();
        let has_part =
            |key: &StateKey| &*key.kind != "m.room.member" || named.contains(&*key.key) || conflicted.contains(key);
        let sets: Vec<matron_room::StateMap> = states
            .map(|state| {
                let part = state.iter().filter(|(key, _)| has_part(key));
                part.map(|(key, id)| ((key.kind.to_string(), key.key.to_string()), (**id).clone())).collect()
            })
            .collect();
        let resolved = resolve(version, &sets, chains, fetch)
            .map_err(|error| Error::internal(format!("states could not be resolved: {error}")))?;
        let mut after = first.clone();
        for key in &conflicted {
            after.remove(key);
        }
        for ((kind, key), id) in resolved {
            let key = StateKey::new(&kind, &key);
            // SPEC: the last step of the algorithm. What nobody disputes stands, whatever was judged on the way to the rest:
            // from version 12 on also events of the past that lie between those in dispute.
            if !first.contains_key(&key) || conflicted.contains(&key) {
                after.insert(key, Arc::new(id));
            }
        }
        Ok(after)
    }

    /// What is to be known of the state's auth chain. What is on its way to the disk cannot be read yet.
    fn chain_of(&self, state: &StateMap, arriving: Option<&Pdu>) -> ChainOf {
        let mut ids: Vec<OwnedEventId> = state.values().map(|id| (**id).clone()).collect();
        let arrives = arriving.filter(|pdu| ids.iter().any(|id| id == pdu.event_id()));
        let under_way: Vec<_> = ids.iter().filter_map(|id| self.rooms.under_way(id)).collect();
        let awaited: Vec<&Pdu> = arrives.into_iter().chain(under_way.iter().map(|event| &event.pdu)).collect();
        ids.extend(awaited.iter().flat_map(|pdu| pdu.auth_event_ids_with_create()));
        let arriving = awaited.iter().map(|pdu| pdu.event_id().to_owned()).collect();
        ChainOf { ids, arriving }
    }
}

/// The users whose memberships the authorisation rules look at for the event.
fn users_of(pdu: &Pdu) -> Vec<String> {
    auth_types_for(pdu.kind(), pdu.sender().as_str(), pdu.state_key(), pdu.content(), pdu.room_version())
        .into_iter()
        .filter(|(kind, _)| kind == "m.room.member")
        .map(|(_, user)| user)
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{rooms::send::NewEvent, test_world::World};

    fn whole(state: &StateMap) -> matron_room::StateMap {
        state.iter().map(|(key, id)| ((key.kind.to_string(), key.key.to_string()), (**id).clone())).collect()
    }

    /// What follows from both states if nothing is left out.
    fn resolved_whole(world: &World, version: &'static RoomVersion, pair: [&StateMap; 2]) -> matron_room::StateMap {
        let chain = |state: &StateMap| world.core.auth_chain(state.values().map(|id| &***id)).unwrap();
        let fetch = |id: &EventId| world.core.load_event(id).unwrap().map(|event| event.pdu.clone());
        resolve(version, &pair.map(whole), pair.map(chain).to_vec(), fetch).unwrap()
    }

    #[tokio::test]
    async fn what_has_no_part_in_a_conflict_changes_nothing_of_its_end() {
        let world = World::new();
        let (anna, ben, cleo) = (world.user("anna").await, world.user("ben").await, world.user("cleo").await);
        for version in ["10", "11", "12"] {
            let others = [world.user(&format!("v{version}a")).await, world.user(&format!("v{version}b")).await];
            let request = crate::rooms::create::CreateRoom {
                preset: Some("public_chat".to_owned()),
                room_version: Some(version.to_owned()),
                ..Default::default()
            };
            let room = world.core.create_room(&anna, request).await.unwrap();
            for user in [&ben, &cleo, &others[0]] {
                world.core.join_room(user, &room, Default::default()).await.unwrap();
            }
            let open = world.core.open_room(&room).unwrap();
            let mut states = vec![open.current()];
            for level in [50, 60] {
                let mut users = json!({ben.as_str(): level, cleo.as_str(): 50});
                if version != "12" {
                    users[anna.as_str()] = json!(100);
                }
                for (user, kind, key, content) in [
                    (&anna, "m.room.power_levels", "", json!({"users": users})),
                    (&ben, "m.room.topic", "", json!({"topic": level.to_string()})),
                    (&cleo, "org.example", "a", json!({"level": level})),
                    (
                        &ben,
                        "m.room.member",
                        ben.as_str(),
                        json!({"membership": "join", "displayname": level.to_string()}),
                    ),
                ] {
                    let new = NewEvent::state(room.clone(), user.clone(), kind, key, content);
                    world.core.send_event(new).await.unwrap();
                }
                states.push(open.current());
            }
            world.core.join_room(&others[1], &room, Default::default()).await.unwrap();
            let kick = json!({"membership": "leave"});
            let new = NewEvent::state(room.clone(), anna.clone(), "m.room.member", cleo.as_str(), kick);
            world.core.send_event(new).await.unwrap();
            states.push(open.current());
            for (one, other) in [(0, 3), (3, 0), (1, 2), (2, 3), (3, 1)] {
                let version = RoomVersion::find(version).unwrap();
                let pair = [&states[one], &states[other]];
                let resolved = world.core.resolve_maps(version, pair[0], pair.into_iter(), None).unwrap();

                let expected = resolved_whole(&world, version, pair);
                assert_eq!(whole(&resolved), expected, "{one} and {other} in version {}", version.as_str());
            }
        }
    }

    #[tokio::test]
    async fn who_left_stays_gone_though_their_words_lie_between_what_conflicts() {
        let world = World::new();
        let (anna, ben, cleo) = (world.user("anna").await, world.user("ben").await, world.user("cleo").await);
        for version in ["10", "11", "12"] {
            let request = crate::rooms::create::CreateRoom {
                preset: Some("public_chat".to_owned()),
                room_version: Some(version.to_owned()),
                ..Default::default()
            };
            let room = world.core.create_room(&anna, request).await.unwrap();
            world.core.join_room(&ben, &room, Default::default()).await.unwrap();
            world.core.invite(&ben, &room, &cleo, None, false).await.unwrap();
            world.core.join_room(&cleo, &room, Default::default()).await.unwrap();
            world.core.leave_room(&ben, &room, None).await.unwrap();
            let open = world.core.open_room(&room).unwrap();
            let before = open.current();
            let levels = StateKey::new("m.room.power_levels", "");
            let users = if version == "12" { json!({}) } else { json!({anna.as_str(): 100}) };
            let named = json!({"membership": "join", "displayname": "Cleo"});
            for (user, kind, key, content) in [
                (&anna, "m.room.power_levels", "", json!({"users": users, "invite": 1})),
                (&cleo, "m.room.member", cleo.as_str(), named),
            ] {
                let new = NewEvent::state(room.clone(), user.clone(), kind, key, content);
                world.core.send_event(new).await.unwrap();
            }
            // One branch has the new levels, the other the new name. That was allowed by a join, which an invitation allowed, which
            // Ben's join allowed: from version 12 on that is judged with what conflicts.
            let mut one = before.clone();
            one.insert(levels.clone(), open.current().get(&levels).unwrap().clone());
            let mut other = open.current();
            other.insert(levels.clone(), before.get(&levels).unwrap().clone());
            let left = StateKey::new("m.room.member", ben.as_str());
            let version = RoomVersion::find(version).unwrap();
            for pair in [[&one, &other], [&other, &one]] {
                let resolved = world.core.resolve_maps(version, pair[0], pair.into_iter(), None).unwrap();
                assert_eq!(resolved.get(&left), before.get(&left), "version {}", version.as_str());
                assert_eq!(whole(&resolved), resolved_whole(&world, version, pair), "version {}", version.as_str());
            }
        }
    }
}

//! The state before and after an event, and of several ends of the graph together.

use std::{collections::BTreeSet, sync::Arc};

use matron_room::{Pdu, RoomVersion, resolve};
use matron_storage::Batch;
use ruma::{EventId, OwnedEventId};

use crate::{
    Core, Error,
    rooms::{GroupId, StateKey, StateMap, Status, StoredEvent},
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
        let resolved = self.resolve_maps(version, distinct.iter().map(|named| &named.state), arriving)?;
        let changes = crate::rooms::state_map::difference(&first.state, &resolved);
        let group = self.write_state_group(batch, first.group, &changes, &resolved)?;
        Ok(NamedState { state: resolved, group })
    }

    fn resolve_maps<'a>(
        &self,
        version: &'static RoomVersion,
        states: impl Iterator<Item = &'a StateMap>,
        arriving: Option<&Pdu>,
    ) -> Result<StateMap, Error> {
        let mut sets = Vec::new();
        let mut chains = Vec::new();
        for state in states {
            let set: matron_room::StateMap =
                state.iter().map(|(key, id)| ((key.kind.to_string(), key.key.to_string()), (**id).clone())).collect();
            let ids: BTreeSet<OwnedEventId> = set.values().cloned().collect();
            let arrives = arriving.filter(|pdu| ids.contains(pdu.event_id()));
            let authorities = arrives.map(Pdu::auth_event_ids_with_create).unwrap_or_default();
            let under_way: Vec<_> = ids.iter().filter_map(|id| self.rooms.under_way(id)).collect();
            let awaited = under_way.iter().flat_map(|event| event.pdu.auth_event_ids_with_create());
            let authorities: Vec<_> = authorities.into_iter().chain(awaited).collect();
            let mut chain = self.auth_chain(ids.iter().chain(&authorities).map(|id| &**id))?;
            chain.extend(arrives.map(|pdu| pdu.event_id().to_owned()));
            chain.extend(under_way.iter().map(|event| event.id().to_owned()));
            chains.push(chain);
            sets.push(set);
        }
        let fetch = |id: &EventId| {
            if let Some(pdu) = arriving.filter(|pdu| pdu.event_id() == id) {
                return Some(pdu.clone());
            }
            let known = self.rooms.under_way(id).or_else(|| self.load_event(id).ok().flatten());
            known.filter(|event| event.is_usable()).map(|event| event.pdu.clone())
        };
        let resolved = resolve(version, &sets, chains, fetch)
            .map_err(|error| Error::internal(format!("states could not be resolved: {error}")))?;
        Ok(resolved.into_iter().map(|((kind, key), id)| (StateKey::new(&kind, &key), Arc::new(id))).collect())
    }
}

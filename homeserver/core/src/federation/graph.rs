//! The event graph: auth chains, and events in an order that respects their references.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    sync::Arc,
};

use matron_room::Pdu;
use ruma::{EventId, OwnedEventId};

use crate::{Core, Error, rooms::EventRef};

/// The longest auth chain that is walked; a longer one is an attack.
const MAX_CHAIN: usize = 200_000;

impl Core {
    /// The events, everything that authorises them, what authorises that, and so on; unknown events are left out.
    ///
    /// # Errors
    /// [`Error::Store`]; [`Error::TooLarge`] for a chain that has no sane end.
    pub fn auth_chain<'a>(&self, ids: impl IntoIterator<Item = &'a EventId>) -> Result<BTreeSet<OwnedEventId>, Error> {
        let mut chain = BTreeSet::new();
        let mut queue: VecDeque<OwnedEventId> = ids.into_iter().map(ToOwned::to_owned).collect();
        let mut seen: HashSet<OwnedEventId> = queue.iter().cloned().collect();
        while let Some(id) = queue.pop_front() {
            let Some(event) = self.load_event(&id)? else { continue };
            for auth in event.pdu.auth_event_ids_with_create() {
                if seen.insert(auth.clone()) {
                    queue.push_back(auth);
                }
            }
            chain.insert(id);
            if chain.len() > MAX_CHAIN {
                return Err(Error::TooLarge("an auth chain is too long".into()));
            }
        }
        Ok(chain)
    }

    /// As [`Core::auth_chain`], the events themselves, without those that were asked for.
    ///
    /// # Errors
    /// As [`Core::auth_chain`].
    pub fn auth_chain_events<'a>(
        &self,
        ids: impl IntoIterator<Item = &'a EventId> + Clone,
    ) -> Result<Vec<EventRef>, Error> {
        let asked: BTreeSet<&EventId> = ids.clone().into_iter().collect();
        let chain = self.auth_chain(ids)?;
        self.load_events(chain.iter().map(|id| &**id).filter(|id| !asked.contains(id)))
    }
}

/// The events, each after all that it refers to (by `references`) among them. Events in a loop come last, in any order.
#[must_use]
pub fn in_order(events: Vec<Pdu>, references: impl Fn(&Pdu) -> Vec<OwnedEventId>) -> Vec<Pdu> {
    let ids: HashMap<OwnedEventId, usize> =
        events.iter().enumerate().map(|(index, pdu)| (pdu.event_id().to_owned(), index)).collect();
    let mut waits: Vec<usize> = vec![0; events.len()];
    let mut frees: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (index, pdu) in events.iter().enumerate() {
        let needed: BTreeSet<usize> =
            references(pdu).iter().filter_map(|id| ids.get(id).copied()).filter(|other| *other != index).collect();
        if let Some(wait) = waits.get_mut(index) {
            *wait = needed.len();
        }
        for other in needed {
            frees.entry(other).or_default().push(index);
        }
    }
    let key = |index: &usize| events.get(*index).map(|pdu| (pdu.depth(), pdu.event_id().to_owned()));
    let mut ready: BTreeSet<(Option<(u64, OwnedEventId)>, usize)> =
        waits.iter().enumerate().filter(|(_, wait)| **wait == 0).map(|(index, _)| (key(&index), index)).collect();
    let mut order = Vec::with_capacity(events.len());
    while let Some((_, index)) = ready.pop_first() {
        order.push(index);
        for freed in frees.remove(&index).unwrap_or_default() {
            if let Some(wait) = waits.get_mut(freed) {
                *wait = wait.saturating_sub(1);
                if *wait == 0 {
                    ready.insert((key(&freed), freed));
                }
            }
        }
    }
    let placed: HashSet<usize> = order.iter().copied().collect();
    order.extend((0..events.len()).filter(|index| !placed.contains(index)));
    let events: Vec<Arc<Pdu>> = events.into_iter().map(Arc::new).collect();
    order.into_iter().filter_map(|index| events.get(index).map(|pdu| (**pdu).clone())).collect()
}

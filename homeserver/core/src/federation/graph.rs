//! The event graph: auth chains, and events in an order that respects their references.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use matron_room::Pdu;
use parking_lot::Mutex;
use ruma::{EventId, OwnedEventId};

use crate::{Core, Error, rooms::EventRef};

/// The longest auth chain that is walked; a longer one is an attack.
const MAX_CHAIN: usize = 200_000;
/// Of how many events it is remembered what authorises them, about 250 bytes each.
const REMEMBERED: usize = 128 * 1024;

/// What authorises the events that auth chains led through: events by number, so that a chain of thousands is walked
/// without reading them again. It never changes, so nothing here is ever stale.
#[derive(Debug, Default)]
pub(crate) struct Authorities(Mutex<Arc<Mutex<Numbered>>>);

impl Authorities {
    /// What is remembered; whoever walks keeps it, also when others begin anew.
    fn current(&self) -> Arc<Mutex<Numbered>> {
        let mut current = self.0.lock();
        if current.lock().events.len() > REMEMBERED {
            *current = Arc::default();
        }
        Arc::clone(&current)
    }
}

#[derive(Debug, Default)]
struct Numbered {
    numbers: HashMap<OwnedEventId, usize>,
    events: Vec<Remembered>,
}

#[derive(Debug)]
struct Remembered {
    id: OwnedEventId,
    /// `None` until the event was read; unknown events are asked for again.
    authority: Option<Box<[usize]>>,
}

impl Numbered {
    fn number(&mut self, id: &EventId) -> usize {
        if let Some(number) = self.numbers.get(id) {
            return *number;
        }
        let number = self.events.len();
        self.numbers.insert(id.to_owned(), number);
        self.events.push(Remembered { id: id.to_owned(), authority: None });
        number
    }

    fn learn(&mut self, number: usize, authority: &[OwnedEventId]) {
        let authority = authority.iter().map(|id| self.number(id)).collect();
        if let Some(event) = self.events.get_mut(number) {
            event.authority = Some(authority);
        }
    }

    fn id(&self, number: usize) -> Option<OwnedEventId> {
        self.events.get(number).map(|event| event.id.clone())
    }
}

/// What one state says of its auth chain.
#[derive(Debug, Default)]
pub(crate) struct ChainOf {
    /// The events whose chain it is.
    pub ids: Vec<OwnedEventId>,
    /// Events that belong to it although the store does not have them yet.
    pub arriving: Vec<OwnedEventId>,
}

impl Core {
    /// The events, everything that authorises them, what authorises that, and so on; unknown events are left out.
    ///
    /// # Errors
    /// [`Error::Store`]; [`Error::TooLarge`] for a chain that has no sane end.
    pub fn auth_chain<'a>(&self, ids: impl IntoIterator<Item = &'a EventId>) -> Result<BTreeSet<OwnedEventId>, Error> {
        let known = self.inbound.authorities.current();
        let chain = self.walk_chain(&known, ids)?;
        let known = known.lock();
        Ok(chain.into_iter().filter_map(|number| known.id(number)).collect())
    }

    /// Of the auth chains of several states, what is not in all of them: all that their resolution asks for.
    ///
    /// # Errors
    /// As [`Core::auth_chain`].
    pub(crate) fn parted_chains(&self, states: &[ChainOf]) -> Result<Vec<BTreeSet<OwnedEventId>>, Error> {
        let known = self.inbound.authorities.current();
        let mut chains = Vec::with_capacity(states.len());
        // How many of the chains hold an event, by its number.
        let mut held_by: Vec<usize> = Vec::new();
        for state in states {
            let mut chain = self.walk_chain(&known, state.ids.iter().map(|id| &**id))?;
            let mut inside = Seen::default();
            for number in &chain {
                inside.is_new(*number);
            }
            let mut known = known.lock();
            chain.extend(state.arriving.iter().map(|id| known.number(id)).filter(|number| inside.is_new(*number)));
            held_by.resize(held_by.len().max(known.events.len()), 0);
            for number in &chain {
                if let Some(held_by) = held_by.get_mut(*number) {
                    *held_by += 1;
                }
            }
            chains.push(chain);
        }
        let known = known.lock();
        let parted = |number: &usize| held_by.get(*number).is_some_and(|held_by| *held_by < chains.len());
        Ok(chains
            .iter()
            .map(|chain| chain.iter().filter(|number| parted(number)).filter_map(|number| known.id(*number)).collect())
            .collect())
    }

    /// The numbers of the events of the chain that are known.
    fn walk_chain<'a>(
        &self,
        known: &Mutex<Numbered>,
        ids: impl IntoIterator<Item = &'a EventId>,
    ) -> Result<Vec<usize>, Error> {
        let mut chain = Vec::new();
        let mut seen = Seen::default();
        let mut waiting: Vec<usize> = {
            let mut known = known.lock();
            ids.into_iter().map(|id| known.number(id)).filter(|number| seen.is_new(*number)).collect()
        };
        while !waiting.is_empty() {
            let mut unread = Vec::new();
            {
                let known = known.lock();
                while let Some(event) = waiting.pop().and_then(|number| Some((number, known.events.get(number)?))) {
                    match event {
                        (number, Remembered { authority: Some(authority), .. }) => {
                            chain.push(number);
                            waiting.extend(authority.iter().copied().filter(|number| seen.is_new(*number)));
                        }
                        (number, Remembered { id, authority: None }) => unread.push((number, id.clone())),
                    }
                }
            }
            if chain.len().saturating_add(unread.len()) > MAX_CHAIN {
                return Err(Error::TooLarge("an auth chain is too long".into()));
            }
            // Not under the lock: this reads the store.
            for (number, id) in unread {
                let Some(event) = self.load_event(&id)? else { continue };
                known.lock().learn(number, &event.pdu.auth_event_ids_with_create());
                waiting.push(number);
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

/// Which numbers were met.
#[derive(Debug, Default)]
struct Seen(Vec<bool>);

impl Seen {
    /// Whether the number is met for the first time.
    fn is_new(&mut self, number: usize) -> bool {
        if self.0.len() <= number {
            self.0.resize(number.saturating_add(1), false);
        }
        self.0.get_mut(number).is_some_and(|seen| !std::mem::replace(seen, true))
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{rooms::send::NewEvent, test_world::World};

    #[tokio::test]
    async fn parted_chains_are_what_whole_chains_do_not_share() {
        let world = World::new();
        let (anna, ben) = (world.user("anna").await, world.user("ben").await);
        let room = world.room(&[&anna, &ben]).await;
        let open = world.core.open_room(&room).unwrap();
        let mut states = Vec::new();
        for level in [50, 60, 70] {
            let levels = json!({"users": {ben.as_str(): level}});
            let new = NewEvent::state(room.clone(), anna.clone(), "m.room.power_levels", "", levels);
            world.core.send_event(new).await.unwrap();
            let topic = json!({"topic": level.to_string()});
            let new = NewEvent::state(room.clone(), ben.clone(), "m.room.topic", "", topic);
            world.core.send_event(new).await.unwrap();
            states.push(open.current().values().map(|id| (**id).clone()).collect::<Vec<_>>());
        }
        let unheard = OwnedEventId::try_from("$of-which-nobody-knows").unwrap();
        let chains: Vec<BTreeSet<OwnedEventId>> =
            states.iter().map(|ids| world.core.auth_chain(ids.iter().map(|id| &**id)).unwrap()).collect();
        let shared: BTreeSet<_> = chains.iter().fold(chains[0].clone(), |shared, chain| &shared & chain);
        let expected: Vec<BTreeSet<_>> = chains.iter().map(|chain| chain - &shared).collect();
        assert!(expected[2].len() > expected[0].len(), "each chain holds the power levels before it");
        let mut asked: Vec<ChainOf> = states.into_iter().map(|ids| ChainOf { ids, arriving: Vec::new() }).collect();
        asked[1].ids.push(unheard.clone());
        assert_eq!(world.core.parted_chains(&asked).unwrap(), expected);

        asked[1].arriving.push(unheard.clone());
        let parted = world.core.parted_chains(&asked).unwrap();
        assert_eq!(&parted[1] - &expected[1], BTreeSet::from([unheard]));
        assert_eq!(parted[2], expected[2]);
    }

    #[tokio::test]
    async fn an_event_that_was_unknown_is_asked_for_again() {
        let world = World::new();
        let anna = world.user("anna").await;
        let room = world.room(&[&anna]).await;
        let open = world.core.open_room(&room).unwrap();
        let ids: Vec<OwnedEventId> = open.current().values().map(|id| (**id).clone()).collect();
        let known = Arc::new(Mutex::new(Numbered::default()));
        // As one that was named before it came.
        for id in &ids {
            known.lock().number(id);
        }
        assert_eq!(world.core.walk_chain(&known, ids.iter().map(|id| &**id)).unwrap().len(), ids.len());
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let authorities = Authorities::default();
        let id = |number: usize| OwnedEventId::try_from(format!("$event-{number}")).unwrap();
        for number in 0..=REMEMBERED {
            authorities.current().lock().number(&id(number));
        }
        assert!(authorities.current().lock().events.is_empty());
    }
}

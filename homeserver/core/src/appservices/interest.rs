//! Which events concern which application service.
//!
//! SPEC: v1.19 Application Service API, "Registration": users, aliases and rooms of its namespaces.

use lru::LruCache;
use matron_storage::{Key, Order, Table};
use ruma::{OwnedRoomAliasId, OwnedRoomId, OwnedUserId, RoomId, UserId};

use super::Appservice;
use crate::{
    Core, Error,
    rooms::{EventRef, aliases::alias_of_row},
};

/// How many rooms' members are remembered.
const WARM_ROOMS: std::num::NonZeroUsize = std::num::NonZeroUsize::MIN.saturating_add(4_095);

/// How many aliases of one room are looked at.
const MAX_ALIASES: usize = 100;

/// By room: who was joined when it was last looked at, and which services, by index, have a user among them.
#[derive(Debug)]
pub(super) struct InterestCache(LruCache<OwnedRoomId, (imbl::OrdSet<OwnedUserId>, Vec<bool>)>);

impl Default for InterestCache {
    fn default() -> Self {
        Self(LruCache::new(WARM_ROOMS))
    }
}

impl Core {
    /// The indexes of the services that an event concerns.
    pub(super) fn services_concerned(
        &self,
        event: &EventRef,
        joined: &imbl::OrdSet<OwnedUserId>,
    ) -> Result<Vec<usize>, Error> {
        let pdu = &event.pdu;
        let members = self.services_among(pdu.room_id(), joined);
        let target = pdu.state_key().and_then(|key| <&UserId>::try_from(key).ok());
        let target = target.filter(|_| pdu.kind() == "m.room.member");
        let mut aliases = None;
        let mut concerned = Vec::new();
        for (index, service) in self.appservices.services.iter().enumerate() {
            let by_user = members.get(index).copied().unwrap_or_default()
                || service.is_interested_in_user(pdu.sender())
                || target.is_some_and(|user| service.is_interested_in_user(user));
            if by_user || service.is_interested_in_room(pdu.room_id()) {
                concerned.push(index);
                continue;
            }
            if service.registration.namespaces.aliases.is_empty() {
                continue;
            }
            let aliases = match &aliases {
                Some(aliases) => aliases,
                None => aliases.insert(self.aliases_for_interest(pdu.room_id())?),
            };
            if aliases.iter().any(|alias| service.is_interested_in_alias(alias)) {
                concerned.push(index);
            }
        }
        Ok(concerned)
    }

    /// For each service, whether one of its users is joined.
    pub(super) fn services_among(&self, room: &RoomId, joined: &imbl::OrdSet<OwnedUserId>) -> Vec<bool> {
        if let Some((known, services)) = self.appservices.interest.lock().0.get(room)
            && known.ptr_eq(joined)
        {
            return services.clone();
        }
        let has_user = |service: &Appservice| joined.iter().any(|user| service.is_interested_in_user(user));
        let services: Vec<bool> = self.appservices.services.iter().map(|service| has_user(service)).collect();
        self.appservices.interest.lock().0.put(room.to_owned(), (joined.clone(), services.clone()));
        services
    }

    fn aliases_for_interest(&self, room: &RoomId) -> Result<Vec<OwnedRoomAliasId>, Error> {
        let rows =
            self.store.scan(Table::RoomAliasByRoom, &Key::new().text(room).prefix(), Order::Ascending, MAX_ALIASES)?;
        Ok(rows.iter().filter_map(|(key, _)| alias_of_row(key)).collect())
    }
}

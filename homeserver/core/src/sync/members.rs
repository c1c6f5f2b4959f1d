//! Which member events go with a timeline, for clients that load members lazily
//! (Client-Server API, "Lazy-loading room members").

use std::collections::{BTreeSet, HashMap};

use ruma::{OwnedUserId, RoomId};

use crate::{
    Core, Requester,
    accounts::EventFilter,
    rooms::{StateKey, StateMap},
};

impl Core {
    /// Of `wanted`, the users whose member event in `state` the device was not told yet; they count as told afterwards.
    pub(super) fn untold_members(
        &self,
        requester: &Requester,
        room: &RoomId,
        filter: &EventFilter,
        state: &StateMap,
        wanted: BTreeSet<OwnedUserId>,
    ) -> BTreeSet<OwnedUserId> {
        let Some(device) = &requester.device_id else { return wanted };
        let mut told = self.sync.told.lock();
        let known = told.get_or_insert_mut((requester.user_id.clone(), device.clone(), room.to_owned()), HashMap::new);
        if known.len() > 10_000 {
            known.clear();
        }
        wanted
            .into_iter()
            .filter(|user| {
                let Some(id) = state.get(&StateKey::new("m.room.member", user.as_str())) else { return false };
                let before = known.insert(user.clone(), (**id).clone());
                filter.include_redundant_members || before.as_ref() != Some(&**id)
            })
            .collect()
    }

    /// The device starts over: it was told of no member of this room.
    pub(super) fn forget_told(&self, requester: &Requester, room: &RoomId) {
        if let Some(device) = &requester.device_id {
            self.sync.told.lock().pop(&(requester.user_id.clone(), device.clone(), room.to_owned()));
        }
    }
}

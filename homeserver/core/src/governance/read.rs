//! Who reads: what policy takes from those who look at a room, whatever the room's own state says.

use matron_policy::{Action, Request, decide_with};
use ruma::{RoomId, ServerName, UserId};

use super::facts::{POLICY_KEY, is_ordinary};
use crate::{
    Core, Error,
    rooms::{Room, StateMap, room::Inner},
};

impl Core {
    /// Whether policy has a say in a room with this state: the deployment's, or the room's own.
    ///
    /// In such a room nothing is open to the world, however open it was before: history that was world readable is its
    /// members', and guests do not come in.
    pub(crate) fn is_governed(&self, state: &StateMap) -> bool {
        !self.rules().ordinary || state.contains_key(&*POLICY_KEY)
    }

    /// Those of the servers that policy lets have what is said in the room: one outside its bounds may still have members
    /// here, until they are removed, or for ever where nobody of this server has the power to.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(crate) fn servers_within<'s>(
        &self,
        inner: &mut Inner,
        servers: impl Iterator<Item = &'s ServerName>,
    ) -> Result<Vec<&'s ServerName>, Error> {
        let rules = self.rules();
        if is_ordinary(&rules, inner) {
            return Ok(servers.collect());
        }
        let in_force = self.in_force(&rules, inner)?;
        let layer = in_force.policy.layer();
        Ok(servers.filter(|server| self.is_local(server) || rules.has_within(layer, server)).collect())
    }

    /// Whether policy lets somebody who is not in the room know of it: who could join it, as far as policy goes. Nobody else learns
    /// what a bounded room is called, or that it is there.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(crate) fn policy_lets_preview(&self, user: Option<&UserId>, room: &Room) -> Result<bool, Error> {
        let rules = self.rules();
        let mut inner = room.lock();
        if is_ordinary(&rules, &inner) {
            return Ok(true);
        }
        let Some(user) = user else { return Ok(false) };
        let in_force = self.in_force(&rules, &mut inner)?;
        let now_ms = self.now_ms();
        let person = self.stored_facts(&rules, user, now_ms)?;
        let request = Request::in_room(self.principal(&rules, user), Action::Join, room.id().as_str());
        let facts = self.facts(&rules, &in_force, person, &request.action, now_ms);
        Ok(decide_with(&request, &facts, &in_force.policy).is_permit())
    }

    /// Whether policy lets the user read what is said in the room. Most do not ask: only `unverified_may_read = false`
    /// takes it from members without a current credential.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(crate) fn policy_lets_read(&self, user: &UserId, room_id: &RoomId) -> Result<bool, Error> {
        let rules = self.rules();
        let Some(room) = self.find_room(room_id)? else { return Ok(true) };
        let mut inner = room.lock();
        if is_ordinary(&rules, &inner) {
            return Ok(true);
        }
        let in_force = self.in_force(&rules, &mut inner)?;
        if in_force.policy.layer().unverified_may_read != Some(false) {
            return Ok(true);
        }
        let request = Request::in_room(self.principal(&rules, user), Action::Read, room_id.as_str());
        let facts = self.facts_in_room(&rules, &mut inner, &in_force, user, &request.action, None)?;
        Ok(decide_with(&request, &facts, &in_force.policy).is_permit())
    }
}

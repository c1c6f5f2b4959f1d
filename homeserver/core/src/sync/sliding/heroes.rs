//! Whose names make up the name of a room that has none.

use std::sync::Arc;

use matron_room::Membership;
use matron_storage::{Order, StreamPos};
use ruma::{OwnedUserId, RoomId, UserId};
use serde_json::Value;

use super::answer::Hero;
use crate::{
    Core, Error,
    rooms::{GroupId, StateMap, state_map::find_in},
    sync::timeline::timeline_of,
};

/// How many names make up a room's name.
const HEROES: usize = 5;

/// What is known of a room's members in one state of it, so that it is not counted for each reader.
#[derive(Debug, Default)]
pub(super) struct Faces {
    /// How many are invited.
    pub invited: u64,
    /// The first of those who are joined or invited: one more than needed, since the reader is no hero.
    here: Vec<OwnedUserId>,
    /// The first of those who were.
    gone: Vec<OwnedUserId>,
}

impl Core {
    /// What is known of the room's members as of `to`, or a little later.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(super) fn faces(&self, room: &RoomId, to: StreamPos) -> Result<Arc<Faces>, Error> {
        // INVARIANT: the name of the state comes from the store and before the members do, so what is kept under it
        // is never older than it.
        let row = self
            .timeline_rows(room, 1 << 63, timeline_of(to).saturating_add(1), Order::Descending, 1)?
            .into_iter()
            .next();
        let group = row.map_or(GroupId::EMPTY, |row| row.group_after);
        if let Some((known, faces)) = self.sync.sliding.faces.lock().get(room)
            && *known == group
        {
            return Ok(Arc::clone(faces));
        }
        let mut faces = Faces::default();
        let mut users: Vec<_> = self.room_users(room)?.into_iter().collect();
        users.sort_by_key(|(_, standing)| standing.position);
        for (user, standing) in users {
            let list = match standing.membership {
                Membership::Invite => {
                    faces.invited = faces.invited.saturating_add(1);
                    &mut faces.here
                }
                Membership::Join => &mut faces.here,
                Membership::Leave | Membership::Ban => &mut faces.gone,
                Membership::Knock => continue,
            };
            if list.len() <= HEROES {
                list.push(user);
            }
        }
        let faces = Arc::new(faces);
        self.sync.sliding.faces.lock().put(room.to_owned(), (group, Arc::clone(&faces)));
        Ok(faces)
    }

    /// The heroes, with their names in the room.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(super) fn heroes(&self, faces: &Faces, state: &StateMap, reader: &UserId) -> Result<Vec<Hero>, Error> {
        let others = |users: &'_ [OwnedUserId]| -> Vec<OwnedUserId> {
            users.iter().filter(|user| **user != *reader).take(HEROES).cloned().collect()
        };
        let mut users = others(&faces.here);
        if users.is_empty() {
            users = others(&faces.gone);
        }
        let mut heroes = Vec::with_capacity(users.len());
        for user_id in users {
            let id = find_in(state, "m.room.member", user_id.as_str());
            let content =
                id.map(|id| self.load_event(id)).transpose()?.flatten().map(|event| event.pdu.content_value());
            let text = |field: &str| {
                content.as_ref().and_then(|content| content.get(field)).and_then(Value::as_str).map(ToOwned::to_owned)
            };
            heroes.push(Hero { displayname: text("displayname"), avatar_url: text("avatar_url"), user_id });
        }
        Ok(heroes)
    }
}

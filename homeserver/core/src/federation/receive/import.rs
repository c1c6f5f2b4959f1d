//! A room that was joined through another server becomes ours too.

use std::sync::Arc;

use matron_room::{Pdu, RoomVersion};
use matron_storage::{Batch, CommitError};
use ruma::RoomId;

use crate::{
    Core, Error,
    federation::fetch::{Judged, off_the_workers},
    rooms::{
        EventRef, GroupId, Room, StateKey, StateMap,
        append::{Append, Appending, Place},
        state_map::{difference, find_in},
    },
};

impl Core {
    /// The room is known with this state, and the join is its newest event. Signatures were verified by the caller.
    ///
    /// # Errors
    /// [`Error::Forbidden`] when the state does not allow the join; [`Error::Store`].
    pub(crate) async fn import_joined_room(
        self: &Arc<Self>,
        room_id: &RoomId,
        version: &'static RoomVersion,
        join: Pdu,
        state: Vec<Pdu>,
        auth_chain: Vec<Pdu>,
    ) -> Result<EventRef, Error> {
        let ids: Vec<_> = state.iter().map(|pdu| pdu.event_id().to_owned()).collect();
        let judged = Arc::new(self.keep_outliers(auth_chain.into_iter().chain(state).collect()).await?);
        let mut before = StateMap::new();
        for id in ids {
            let Some((pdu, true)) = judged.get(&id) else { continue };
            if let Some(key) = pdu.state_key().filter(|_| pdu.room_id() == room_id) {
                before.insert(StateKey::new(pdu.kind(), key), Arc::new(id));
            }
        }
        for _ in 0..3 {
            let (room, known) = match self.find_room(room_id)? {
                Some(room) => (room, true),
                None => (Arc::new(Room::empty(room_id.to_owned(), version)), false),
            };
            let (core, into, join) = (Arc::clone(self), Arc::clone(&room), join.clone());
            let (before, judged) = (before.clone(), Arc::clone(&judged));
            // Who comes back missed what was said meanwhile.
            let place = if known { Place::AfterGap } else { Place::Timeline };
            let appending = off_the_workers(move || core.append_join(&into, place, join, before, judged)).await?;
            match self.finish_append(appending).await {
                Ok(event) => {
                    if !known {
                        self.rooms.keep_open(room);
                    }
                    return Ok(event);
                }
                Err(CommitError::Conflict(_)) => self.resume_after_conflict()?,
                Err(error) => return Err(error.into()),
            }
        }
        Err(Error::LimitExceeded { retry_after_ms: 500 })
    }

    /// The join is on its way to the disk, and with it all of the room: both or nothing.
    fn append_join(
        &self,
        room: &Arc<Room>,
        place: Place,
        join: Pdu,
        before: StateMap,
        judged: Arc<Judged>,
    ) -> Result<Appending, Error> {
        let mut inner = room.lock();
        let mut batch = Batch::new();
        let changes = difference(&StateMap::new(), &before);
        let group = self.write_state_group(&mut batch, GroupId::EMPTY, &changes, &before)?;
        self.check_join(&join, &before)?;
        let mut after = before;
        if let Some(key) = join.state_key() {
            after.insert(StateKey::new(join.kind(), key), Arc::new(join.event_id().to_owned()));
        }
        let item = Append {
            place,
            extremities: Some(vec![(join.event_id().to_owned(), join.depth())]),
            federate: false,
            with: batch,
            at_hand: judged,
            ..Append::local(join, group, Some(after))
        };
        self.append(room, &mut inner, item)
    }

    fn check_join(&self, join: &Pdu, state: &StateMap) -> Result<(), Error> {
        let find = |kind: &str, key: &str| {
            let id = find_in(state, kind, key)?;
            self.load_event(id).ok().flatten().map(|event| event.pdu.clone())
        };
        matron_room::check_auth(join, find).map_err(|error| Error::forbidden(error.sentence))
    }
}

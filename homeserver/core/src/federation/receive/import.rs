//! A room that was joined through another server becomes ours too.

use std::{collections::BTreeSet, sync::Arc};

use matron_room::{Pdu, RoomVersion};
use matron_storage::{Batch, CommitError};
use ruma::RoomId;

use crate::{
    Core, Error,
    rooms::{
        EventRef, GroupId, Room, StateKey, StateMap, Status,
        append::{Append, Place},
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
        self.keep_outliers(auth_chain.into_iter().chain(state).collect()).await?;
        let mut before = StateMap::new();
        for id in ids {
            let Some(event) = self.load_event(&id)?.filter(|event| event.is_usable()) else { continue };
            if let Some(key) = event.pdu.state_key().filter(|_| event.pdu.room_id() == room_id) {
                before.insert(StateKey::new(event.pdu.kind(), key), Arc::new(id));
            }
        }
        for _ in 0..3 {
            let (room, known) = match self.find_room(room_id)? {
                Some(room) => (room, true),
                None => (Arc::new(Room::empty(room_id.to_owned(), version)), false),
            };
            let appending = {
                let mut inner = room.lock();
                let mut batch = Batch::new();
                let mut whole = before.clone();
                let changes = difference(&StateMap::new(), &whole);
                let group = self.write_state_group(&mut batch, GroupId::EMPTY, &changes, &whole)?;
                self.check_join(&join, &whole)?;
                if let Some(key) = join.state_key() {
                    whole.insert(StateKey::new(join.kind(), key), Arc::new(join.event_id().to_owned()));
                }
                let item = Append {
                    pdu: join.clone(),
                    status: Status::Accepted,
                    // Who comes back missed what was said meanwhile.
                    place: if known { Place::AfterGap } else { Place::Timeline },
                    state_before: group,
                    current_after: Some(whole),
                    extremities: Some(vec![(join.event_id().to_owned(), join.depth())]),
                    txn: None,
                    federate: false,
                    also_to: BTreeSet::new(),
                    with: batch,
                };
                self.append(&room, &mut inner, item)?
            };
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

    fn check_join(&self, join: &Pdu, state: &StateMap) -> Result<(), Error> {
        let find = |kind: &str, key: &str| {
            let id = find_in(state, kind, key)?;
            self.load_event(id).ok().flatten().map(|event| event.pdu.clone())
        };
        matron_room::check_auth(join, find).map_err(|error| Error::forbidden(error.sentence))
    }
}

//! Invites of users of application services to rooms that this server is not in, and how they end: no timeline holds them.
//!
//! A row says of whom and of which room a service has still to hear; what it hears is how that stands when it is sent.

use matron_storage::{Batch, CommitError, Key, KeyReader, Order, Table};
use ruma::{OwnedRoomId, OwnedUserId, RoomId, UserId};
use serde_json::{Map, Value};

use super::{Appservice, queue::Queue};
use crate::{Core, Error, federation::handshake::OutsideStanding};

/// What the rows' keys begin with.
const WAITING: &str = "waits for an application service";
/// How many go into one transaction.
const MAX_ROWS: usize = 100;

/// Rows that were read: their keys and values, and what they say in the form of a transaction.
#[derive(Default)]
pub(super) struct Outside {
    rows: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) events: Vec<Value>,
    more: bool,
}

impl Core {
    fn services_of<'a>(&'a self, user: &'a UserId) -> impl Iterator<Item = (&'a Appservice, &'a Queue)> {
        let all = self.appservices.services.iter().zip(&self.appservices.queues);
        all.map(|(service, queue)| (&**service, queue))
            .filter(move |(service, _)| service.registration.url.is_some() && service.is_interested_in_user(user))
    }

    /// The services whose user this is have to hear how the user stands in this room. After the commit, wake them.
    pub(crate) fn batch_for_services(&self, batch: &mut Batch, user: &UserId, room: &RoomId) {
        for (service, _) in self.services_of(user) {
            let key = Key::new().text(WAITING).text(&service.registration.id).text(user).text(room);
            // Never twice the same: what was told is not mistaken for what came meanwhile.
            batch.put(Table::Misc, key, rand::random::<u64>().to_be_bytes());
        }
    }

    pub(crate) fn wake_services_of(&self, user: &UserId) {
        self.services_of(user).for_each(|(_, queue)| queue.add_outside());
    }

    /// What the service has still to hear.
    pub(super) fn read_outside(&self, service: &Appservice) -> Result<Outside, Error> {
        let prefix = Key::new().text(WAITING).text(&service.registration.id).prefix();
        let rows = self.store.scan(Table::Misc, &prefix, Order::Ascending, MAX_ROWS)?;
        let mut outside = Outside { more: rows.len() == MAX_ROWS, ..Outside::default() };
        for (key, value) in rows {
            let mut reader = KeyReader::new(&key);
            let (_, _) = (reader.text(), reader.text());
            let (user, room) = (reader.text(), reader.text());
            let user = user.and_then(|user| OwnedUserId::try_from(user).ok());
            let room = room.and_then(|room| OwnedRoomId::try_from(room).ok());
            if let (Some(user), Some(room)) = (user, room)
                && let Some(event) = self.outside_event(&user, &room)?
            {
                outside.events.push(event);
            }
            outside.rows.push((key, value));
        }
        Ok(outside)
    }

    /// The member event of the user's standing, as clients see it, with what the invite told of the room.
    fn outside_event(&self, user: &UserId, room: &RoomId) -> Result<Option<Value>, Error> {
        let Some(OutsideStanding { event, shown }) = self.outside_standing(user, room)? else { return Ok(None) };
        let event = matron_room::client_event(&event, &matron_room::Unsigned::default());
        let mut event: Map<String, Value> =
            serde_json::from_str(event.get()).map_err(|_| Error::internal("an event has no client form"))?;
        if !shown.is_empty() {
            let unsigned = event.entry("unsigned").or_insert_with(|| Map::new().into());
            if let Some(unsigned) = unsigned.as_object_mut() {
                unsigned.insert("invite_room_state".to_owned(), serde_json::json!(shown));
            }
        }
        Ok(Some(event.into()))
    }

    /// The service has heard it. What came meanwhile stays.
    pub(super) async fn acknowledge_outside(&self, queue: &Queue, outside: Outside) -> Result<(), Error> {
        for (key, value) in outside.rows {
            let mut batch = Batch::new();
            batch.expect_equals(Table::Misc, key.clone(), value);
            batch.delete(Table::Misc, key);
            match self.store.submit(batch).await {
                Ok(_) | Err(CommitError::Conflict(_)) => {}
                Err(CommitError::Store(error)) => return Err(error.into()),
            }
        }
        if outside.more {
            queue.add_outside();
        }
        Ok(())
    }
}

//! Reports: what users tell the operators of rooms, events and people (Client-Server API, "Reporting Content").

use matron_storage::{Batch, Key, SlotForm, Table};
use ruma::{EventId, RoomId, UserId};
use serde::Serialize;

use crate::{Core, Error, house::to_json};

/// The longest reason that is kept, bytes.
const MAX_REASON_BYTES: usize = 10_000;

/// What is reported.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(tag = "about", rename_all = "lowercase")]
pub enum Reported<'a> {
    /// An event.
    Event {
        /// Its room.
        room_id: &'a RoomId,
        /// It.
        event_id: &'a EventId,
    },
    /// A room.
    Room {
        /// It.
        room_id: &'a RoomId,
    },
    /// A user.
    User {
        /// Them.
        user_id: &'a UserId,
    },
}

#[derive(Serialize)]
struct Row<'a> {
    #[serde(flatten)]
    reported: Reported<'a>,
    by: &'a UserId,
    reason: Option<&'a str>,
    score: Option<i64>,
    received_ms: u64,
}

impl Core {
    /// The report is kept for the operators.
    ///
    /// # Errors
    /// [`Error::NotFound`] for an event that the user cannot see, a room that is not known, or a local user who is not;
    /// [`Error::TooLarge`].
    pub async fn report(
        &self,
        by: &UserId,
        reported: Reported<'_>,
        reason: Option<&str>,
        score: Option<i64>,
    ) -> Result<(), Error> {
        if reason.is_some_and(|reason| reason.len() > MAX_REASON_BYTES) {
            return Err(Error::TooLarge("a reason has at most 10,000 bytes".into()));
        }
        match reported {
            Reported::Event { room_id, event_id } => {
                if !self.is_joined(by, room_id)? {
                    return Err(Error::not_found("this event is not known, or not for you"));
                }
                self.visible_event(by, room_id, event_id)?;
            }
            Reported::Room { room_id } => {
                self.open_room(room_id)?;
            }
            Reported::User { user_id } => {
                if self.is_local_user(user_id) && !self.account_exists(user_id)? {
                    return Err(Error::not_found("this user is not known"));
                }
            }
        }
        let row = Row { reported, by, reason, score, received_ms: self.now_ms() };
        let mut batch = Batch::new();
        let index = batch.reserve_position();
        let (key, slot) = Key::new().position(index, SlotForm::Plain);
        batch.put_at(Table::EventReport, key, Some(slot), to_json(&row)?, None);
        self.commit(batch).await.map(drop)
    }
}

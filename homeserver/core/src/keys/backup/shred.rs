//! The death of backed-up sessions with the content that they decrypt.

use matron_storage::{KeyRange, KeyReader, MAX_PAGE, Order, Table};
use ruma::{OwnedUserId, RoomId, UserId};

use super::{Scope, sessions_key};
use crate::{Core, Error};

impl Core {
    /// No backup of any user holds these sessions any more: what they decrypt has expired. How many were removed.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn shred_backup_sessions(&self, room: &RoomId, sessions: &[String]) -> Result<u64, Error> {
        let mut range = KeyRange::all();
        let mut shredded = 0_u64;
        loop {
            let page = self.store.scan(Table::BackupVersion, &range, Order::Ascending, MAX_PAGE)?;
            for (key, _) in &page {
                let mut reader = KeyReader::new(key);
                let user = reader.text().and_then(|user| OwnedUserId::try_from(user).ok());
                if let (Some(user), Some(number)) = (user, reader.number()) {
                    for session in sessions {
                        shredded = shredded.saturating_add(self.shred_session(&user, number, room, session).await?);
                    }
                }
            }
            match page.last() {
                Some((last, _)) if page.len() == MAX_PAGE => range = range.after(last),
                _ => return Ok(shredded),
            }
        }
    }

    async fn shred_session(&self, user: &UserId, number: u64, room: &RoomId, session: &str) -> Result<u64, Error> {
        let key = sessions_key(user, number).text(room).text(session);
        if self.store.get(Table::BackupSession, key.as_bytes())?.is_none() {
            return Ok(0);
        }
        match self.delete_backup_sessions(user, &number.to_string(), Scope::Session(room, session)).await {
            Ok(_) => Ok(1),
            // The user deleted the version meanwhile, which is as good.
            Err(Error::NotFound(_)) => Ok(0),
            Err(error) => Err(error),
        }
    }
}

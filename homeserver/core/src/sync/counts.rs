//! Unread counts, as `/sync` shows them.

use std::collections::BTreeMap;

use ruma::{RoomId, UserId};

use super::answer::UnreadCounts;
use crate::{Core, Error, push::Unread};

impl From<Unread> for UnreadCounts {
    fn from(unread: Unread) -> Self {
        Self { notification_count: unread.notification_count, highlight_count: unread.highlight_count }
    }
}

impl Core {
    /// The user's unread counts in the room; by thread, if asked for.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(super) fn unread_counts(
        &self,
        user: &UserId,
        room: &RoomId,
        by_thread: bool,
    ) -> Result<(UnreadCounts, Option<BTreeMap<String, UnreadCounts>>), Error> {
        let counts = self.count_unread(user, room)?;
        if !by_thread {
            return Ok((counts.total().into(), None));
        }
        let threads = counts.threads.iter().map(|(root, unread)| (root.to_string(), (*unread).into())).collect();
        Ok((counts.main.into(), Some(threads)))
    }
}

//! Unread counts, as `/sync` shows them.

use std::collections::BTreeMap;

use ruma::{OwnedRoomId, RoomId, UserId};

use super::{answer::UnreadCounts, build::Span};
use crate::{Core, Error, Requester};

impl Core {
    /// The user's unread counts in the room; by thread, if asked for.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(super) fn unread_counts(
        &self,
        _user: &UserId,
        _room: &RoomId,
        by_thread: bool,
    ) -> Result<(UnreadCounts, Option<BTreeMap<String, UnreadCounts>>), Error> {
        Ok((UnreadCounts::default(), by_thread.then(BTreeMap::new)))
    }

    /// Whether the user's counts in the room changed in this span.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(super) fn counts_moved(&self, _requester: &Requester, _room: &OwnedRoomId, _span: &Span<'_>) -> Result<bool, Error> {
        Ok(false)
    }
}

//! Which rooms changed, in the order of the stream, so that a sync looks at what changed and not at
//! everything joined.
//!
//! INVARIANT: a change is announced before its batch is submitted and published after it is visible. A
//! reader that samples the position first and asks for changes then sees each change at or below that
//! position, as published or as under way.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::Arc,
};

use matron_storage::StreamPos;
use parking_lot::Mutex;
use ruma::{OwnedRoomId, OwnedUserId, RoomId, UserId};

/// How many changes are remembered; older tokens fall back to asking every joined room.
const REMEMBERED: usize = 65_536;

#[derive(Debug, Default)]
struct Inner {
    /// Positions above this are all in `log` or `under_way`.
    floor: u64,
    log: VecDeque<(u64, OwnedRoomId)>,
    under_way: HashMap<OwnedRoomId, usize>,
    /// Whose standing in some room is about to change.
    users: HashMap<OwnedUserId, usize>,
}

/// The log of changed rooms. Bounded.
#[derive(Debug, Default)]
pub struct ChangeLog(Mutex<Inner>);

/// A change under way; [`ChangeGuard::publish`] ends it, dropping it withdraws it.
#[derive(Debug)]
pub struct ChangeGuard {
    log: Arc<ChangeLog>,
    room: OwnedRoomId,
    users: Vec<OwnedUserId>,
}

impl ChangeLog {
    /// Sets where the log begins: what happened before is not remembered.
    pub fn start_at(&self, position: StreamPos) {
        self.0.lock().floor = position.0;
    }

    /// Announces that a room is about to change, and the standing of these users in it.
    ///
    /// INVARIANT: from here until the guard goes, nobody answers from what memory holds of these users' rooms: the
    /// store may hold something newer already.
    #[must_use]
    pub fn begin(self: &Arc<Self>, room: &RoomId, users: &[OwnedUserId]) -> ChangeGuard {
        let mut inner = self.0.lock();
        let count = inner.under_way.entry(room.to_owned()).or_insert(0);
        *count = count.saturating_add(1);
        for user in users {
            let count = inner.users.entry(user.clone()).or_insert(0);
            *count = count.saturating_add(1);
        }
        ChangeGuard { log: Arc::clone(self), room: room.to_owned(), users: users.to_vec() }
    }

    /// Whether the user's standing in some room is about to change.
    #[must_use]
    pub fn is_moving(&self, user: &UserId) -> bool {
        self.0.lock().users.contains_key(user)
    }

    /// The rooms that changed after `since`, those under way included; `None` when that is too long ago.
    #[must_use]
    pub fn rooms_since(&self, since: StreamPos) -> Option<BTreeSet<OwnedRoomId>> {
        let inner = self.0.lock();
        if since.0 < inner.floor {
            return None;
        }
        let mut rooms: BTreeSet<OwnedRoomId> = inner.under_way.keys().cloned().collect();
        // Entries are nearly in order of position: publishing follows the commits closely. Looking a little
        // further back than the first older entry covers what was published out of order.
        let mut older = 0;
        for (position, room) in inner.log.iter().rev() {
            if *position > since.0 {
                rooms.insert(room.clone());
            } else {
                older += 1;
                if older > 256 {
                    break;
                }
            }
        }
        Some(rooms)
    }
}

impl ChangeGuard {
    /// The change is visible at this position.
    pub fn publish(self, position: StreamPos) {
        let mut inner = self.log.0.lock();
        // Messages that follow each other in one room are one change of it, as of the last.
        if let Some((last, room)) = inner.log.back_mut()
            && *room == self.room
        {
            *last = position.0.max(*last);
            return;
        }
        inner.log.push_back((position.0, self.room.clone()));
        if inner.log.len() > REMEMBERED
            && let Some((forgotten, _)) = inner.log.pop_front()
        {
            inner.floor = inner.floor.max(forgotten);
        }
        drop(inner);
        // The guard's drop takes it off the list of those under way.
    }
}

impl Drop for ChangeGuard {
    fn drop(&mut self) {
        let mut inner = self.log.0.lock();
        if let Some(count) = inner.under_way.get_mut(&self.room) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                inner.under_way.remove(&self.room);
            }
        }
        for user in &self.users {
            if let Some(count) = inner.users.get_mut(user) {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    inner.users.remove(user);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use ruma::room_id;

    use super::*;

    #[test]
    fn a_room_that_goes_on_changing_takes_one_place_and_is_told_to_whoever_missed_the_last() {
        let log = Arc::new(ChangeLog::default());
        let (ward, clinic) = (room_id!("!ward:x"), room_id!("!clinic:x"));
        for (room, position) in [(ward, 1), (ward, 2), (clinic, 3), (ward, 5), (ward, 4)] {
            log.begin(room, &[]).publish(StreamPos(position));
        }
        assert_eq!(log.0.lock().log.len(), 3);
        let since = |position| log.rooms_since(StreamPos(position)).unwrap().into_iter().collect::<Vec<_>>();
        assert_eq!(since(0), [clinic, ward]);
        assert_eq!(since(3), [ward]);
        assert_eq!(since(4), [ward]);
        assert!(since(5).is_empty());
    }
}

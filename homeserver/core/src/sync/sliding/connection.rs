//! What a connection was told: one state for each `pos` that may still be asked from.

use std::{
    collections::VecDeque,
    num::NonZeroUsize,
    sync::{Arc, Weak},
};

use lru::LruCache;
use matron_storage::StreamPos;
use parking_lot::Mutex;
use ruma::{OwnedDeviceId, OwnedRoomId, OwnedUserId};

use super::required::RoomConfig;
use crate::{Error, Requester, rooms::members::UserRooms, sync::answer::UnreadCounts};

/// How many connections are remembered; whoever comes back later starts over.
const MAX_CONNECTIONS: usize = 16_384;
/// How many rooms all connections together remember.
const MAX_ROOMS: usize = 2_000_000;
/// How many answers a connection may be asked to go on from: the last, and those that may have been lost.
const KEPT_POSITIONS: usize = 4;

/// How far one stream of a room was told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Told {
    /// Nothing.
    #[default]
    Never,
    /// Up to here; something came since.
    Until(StreamPos),
    /// All up to the position's stream.
    Live,
}

impl Told {
    /// Something came after `since` that is not told now.
    pub(super) fn fall_behind(&mut self, since: StreamPos) {
        if *self == Self::Live {
            *self = Self::Until(since);
        }
    }

    /// What has been told goes up to here.
    pub(super) fn up_to(self, since: StreamPos) -> Option<StreamPos> {
        match self {
            Self::Never => None,
            Self::Until(position) => Some(position),
            Self::Live => Some(since),
        }
    }
}

/// What the client was told of a room.
#[derive(Clone, Debug, Default)]
pub(super) struct SentRoom {
    /// Timeline, state and counts.
    pub room: Told,
    /// Account data.
    pub account_data: Told,
    /// Receipts.
    pub receipts: Told,
    /// What it asked for when it was told.
    pub config: Arc<RoomConfig>,
    /// Whose member events it was told, of those that are told lazily.
    pub members: imbl::OrdSet<OwnedUserId>,
    /// The unread counts it was told.
    pub counts: UnreadCounts,
    /// Whether it was told that the room is a direct chat.
    pub is_dm: bool,
}

/// What a client knows that has this `pos`. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Position {
    /// Its number within the connection.
    pub number: u64,
    /// Up to where it was told.
    pub stream: StreamPos,
    /// Typing, up to here.
    pub ephemeral: u64,
    /// By room.
    pub rooms: imbl::OrdMap<OwnedRoomId, Arc<SentRoom>>,
    /// Whether it was told the account data outside rooms.
    pub account_data: bool,
    /// Whether it was told which threads the user follows.
    pub threads: bool,
    /// What it asked for, so that equal wishes are one.
    pub configs: Vec<Arc<RoomConfig>>,
    /// The user's rooms as they were, if none of them was newer than `stream`.
    pub standings: Weak<UserRooms>,
}

type Key = (OwnedUserId, Option<OwnedDeviceId>, String);

#[derive(Debug)]
struct Connection {
    /// Tells this connection's `pos` from that of one before it.
    nonce: u64,
    next: u64,
    kept: VecDeque<Position>,
}

/// All connections. Bounded.
#[derive(Debug)]
pub(super) struct Connections(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    open: LruCache<Key, Connection>,
    rooms: usize,
}

impl Default for Connections {
    fn default() -> Self {
        let capacity = NonZeroUsize::new(MAX_CONNECTIONS).unwrap_or(NonZeroUsize::MIN);
        Self(Mutex::new(Inner { open: LruCache::new(capacity), rooms: 0 }))
    }
}

impl Connection {
    fn size(&self) -> usize {
        self.kept.back().map_or(0, |position| position.rooms.len())
    }
}

fn key(requester: &Requester, conn_id: Option<&str>) -> Key {
    (requester.user_id.clone(), requester.device_id.clone(), conn_id.unwrap_or_default().to_owned())
}

fn read_pos(text: &str) -> Option<(u64, u64)> {
    let (nonce, number) = text.strip_prefix('p')?.split_once('_')?;
    Some((u64::from_str_radix(nonce, 16).ok()?, number.parse().ok()?))
}

impl Connections {
    /// Up to where the device was told when it got this `pos`, if that is still known.
    pub(super) fn stream_of(&self, requester: &Requester, pos: &str) -> Option<StreamPos> {
        let (nonce, number) = read_pos(pos)?;
        let inner = self.0.lock();
        let own = |key: &Key| key.0 == requester.user_id && key.1 == requester.device_id;
        let mut connections = inner.open.iter().filter(|(key, it)| own(key) && it.nonce == nonce);
        let (_, connection) = connections.next()?;
        connection.kept.iter().find(|position| position.number == number).map(|position| position.stream)
    }

    /// What the client knows that has this `pos`; what was kept for earlier answers is dropped.
    ///
    /// # Errors
    /// [`Error::UnknownPos`]: the connection was forgotten, or another took its place.
    pub(super) fn resume(&self, requester: &Requester, conn_id: Option<&str>, pos: &str) -> Result<Position, Error> {
        let (nonce, number) = read_pos(pos).ok_or(Error::UnknownPos)?;
        let mut inner = self.0.lock();
        let connection = inner
            .open
            .get_mut(&key(requester, conn_id))
            .filter(|connection| connection.nonce == nonce)
            .ok_or(Error::UnknownPos)?;
        let found = connection.kept.iter().find(|position| position.number == number).cloned();
        let found = found.ok_or(Error::UnknownPos)?;
        connection.kept.retain(|position| position.number >= number);
        Ok(found)
    }

    /// The client may go on from this position; its `pos`. One with number 0 begins the connection anew.
    pub(super) fn keep(&self, requester: &Requester, conn_id: Option<&str>, mut position: Position) -> String {
        let mut inner = self.0.lock();
        let key = key(requester, conn_id);
        let fresh = position.number == 0;
        let known = if fresh { None } else { inner.open.pop(&key) };
        if fresh && let Some(before) = inner.open.pop(&key) {
            inner.rooms = inner.rooms.saturating_sub(before.size());
        }
        let before = known.as_ref().map_or(0, Connection::size);
        let mut connection =
            known.unwrap_or_else(|| Connection { nonce: rand::random(), next: 1, kept: VecDeque::new() });
        position.number = connection.next;
        connection.next = connection.next.saturating_add(1);
        let pos = format!("p{:016x}_{}", connection.nonce, position.number);
        connection.kept.push_back(position);
        if connection.kept.len() > KEPT_POSITIONS {
            connection.kept.pop_front();
        }
        inner.rooms = inner.rooms.saturating_sub(before).saturating_add(connection.size());
        if let Some((_, gone)) = inner.open.push(key, connection) {
            inner.rooms = inner.rooms.saturating_sub(gone.size());
        }
        while inner.rooms > MAX_ROOMS && inner.open.len() > 1 {
            let Some((_, gone)) = inner.open.pop_lru() else { break };
            inner.rooms = inner.rooms.saturating_sub(gone.size());
        }
        pos
    }
}

#[cfg(test)]
mod tests {
    use ruma::{owned_room_id, owned_user_id};

    use super::*;

    fn requester() -> Requester {
        Requester {
            user_id: owned_user_id!("@a:x"),
            device_id: Some("D".into()),
            appservice: None,
            is_admin: false,
            is_guest: false,
            token_hash: None,
        }
    }

    fn position(stream: u64, number: u64) -> Position {
        let mut position = Position { number, stream: StreamPos(stream), ..Position::default() };
        position.rooms.insert(owned_room_id!("!r:x"), Arc::default());
        position
    }

    #[test]
    fn an_answer_that_was_lost_can_be_asked_for_again() {
        let connections = Connections::default();
        let first = connections.keep(&requester(), None, position(1, 0));
        let known = connections.resume(&requester(), None, &first).unwrap();
        let second = connections.keep(&requester(), None, Position { stream: StreamPos(2), ..known });
        let again = connections.resume(&requester(), None, &first).unwrap();
        assert_eq!(again.stream, StreamPos(1));
        assert_eq!(connections.resume(&requester(), None, &second).unwrap().stream, StreamPos(2));
        assert!(connections.resume(&requester(), None, &first).is_err(), "the client has the second answer");
    }

    #[test]
    fn a_connection_that_begins_anew_forgets_the_old_one() {
        let connections = Connections::default();
        let old = connections.keep(&requester(), Some("c"), position(1, 0));
        let new = connections.keep(&requester(), Some("c"), position(2, 0));
        assert!(matches!(connections.resume(&requester(), Some("c"), &old), Err(Error::UnknownPos)));
        assert!(matches!(connections.resume(&requester(), Some("other"), &new), Err(Error::UnknownPos)));
        assert_eq!(connections.resume(&requester(), Some("c"), &new).unwrap().stream, StreamPos(2));
        assert_eq!(connections.0.lock().rooms, 1);
        for text in ["", "p", "p1", "p_1", "pzz_1", "s1_2_3"] {
            assert!(matches!(connections.resume(&requester(), Some("c"), text), Err(Error::UnknownPos)), "{text}");
        }
    }
}

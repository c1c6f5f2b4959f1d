//! Events that syncs may see already and counts do not hold yet.
//!
//! An event is visible the moment its batch is committed; it is counted a little later, by whoever waited for the commit.
//! A sync between the two would tell the event with the counts before it, and no later sync would tell better ones.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use matron_storage::StreamPos;
use parking_lot::Mutex;
use ruma::{OwnedRoomId, RoomId};

/// The events of one room that are on their way, in the order of their positions.
#[derive(Debug)]
struct Line {
    /// The number of the first of `waiting`.
    first: u64,
    /// Whether each is dealt with, and the position of one that is counted.
    waiting: VecDeque<Option<StreamPos>>,
    /// Every event of the room up to here is counted.
    counted_to: StreamPos,
}

type Lines = Arc<Mutex<HashMap<OwnedRoomId, Line>>>;

/// The events on their way, by room. Bounded by the writes under way.
#[derive(Debug, Default)]
pub(super) struct Expected(Lines);

/// An event that is not counted yet; one that is dropped was not committed.
#[derive(Debug)]
pub(crate) struct Uncounted {
    lines: Lines,
    room: OwnedRoomId,
    number: u64,
    position: StreamPos,
}

impl Expected {
    /// An event comes to the end of the room's timeline. Call it in the order of positions, before the submission;
    /// `now` is where the stream stands.
    pub(super) fn expect(&self, room: &RoomId, now: StreamPos) -> Uncounted {
        let mut lines = self.0.lock();
        let line = lines.entry(room.to_owned()).or_insert_with(|| Line {
            first: 0,
            waiting: VecDeque::new(),
            // What was before in this room is counted: nothing was waiting.
            counted_to: now,
        });
        let number = line.first.saturating_add(u64::try_from(line.waiting.len()).unwrap_or(u64::MAX));
        line.waiting.push_back(None);
        Uncounted { lines: Arc::clone(&self.0), room: room.to_owned(), number, position: StreamPos(0) }
    }

    /// Up to where the room's events are counted; `None`: all that are committed.
    pub(super) fn counted_to(&self, room: &RoomId) -> Option<StreamPos> {
        self.0.lock().get(room).map(|line| line.counted_to)
    }
}

impl Uncounted {
    /// The event is counted, at this position.
    pub(crate) fn counted(mut self, position: StreamPos) {
        self.position = position;
    }
}

impl Drop for Uncounted {
    fn drop(&mut self) {
        let mut lines = self.lines.lock();
        let Some(line) = lines.get_mut(&self.room) else { return };
        let place = usize::try_from(self.number.saturating_sub(line.first)).ok();
        if let Some(waiting) = place.and_then(|place| line.waiting.get_mut(place)) {
            *waiting = Some(self.position);
        }
        while let Some(Some(position)) = line.waiting.front() {
            line.counted_to = line.counted_to.max(*position);
            line.waiting.pop_front();
            line.first = line.first.saturating_add(1);
        }
        if line.waiting.is_empty() {
            lines.remove(&self.room);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_counted_once_all_before_it_are() {
        let room = ruma::room_id!("!r:x");
        let expected = Expected::default();
        assert_eq!(expected.counted_to(room), None);
        let first = expected.expect(room, StreamPos(4));
        let lost = expected.expect(room, StreamPos(4));
        let third = expected.expect(room, StreamPos(5));
        assert_eq!(expected.counted_to(room), Some(StreamPos(4)));
        third.counted(StreamPos(7));
        assert_eq!(expected.counted_to(room), Some(StreamPos(4)));
        first.counted(StreamPos(5));
        assert_eq!(expected.counted_to(room), Some(StreamPos(5)));
        drop(lost);
        assert_eq!(expected.counted_to(room), None);
    }
}

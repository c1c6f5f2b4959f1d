//! Gaps that stayed before an event because nobody gave what lies in them when it came: asked for again, later.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use matron_room::Pdu;
use parking_lot::Mutex;
use ruma::{OwnedEventId, OwnedRoomId, RoomId, ServerName};

use crate::{Core, Error, rooms::Room};

/// How many rooms' gaps are remembered.
const MAX_ROOMS: usize = 512;
/// How many gaps of one room are remembered.
const MAX_GAPS: usize = 64;
/// How soon a gap is asked for again, ms; doubled each time.
const FIRST_WAIT_MS: u64 = 15_000;
/// How often.
const MAX_TRIES: u32 = 8;

/// An event whose history is not whole.
#[derive(Debug)]
struct Gap {
    event: OwnedEventId,
    tries: u32,
    next_ms: u64,
}

/// The gaps that are remembered; after a restart, those of which the timeline keeps a mark.
#[derive(Debug, Default)]
pub(crate) struct Gaps(Mutex<HashMap<OwnedRoomId, VecDeque<Gap>>>);

impl Gaps {
    fn note(&self, room: &RoomId, gap: Gap) {
        let mut gaps = self.0.lock();
        if gaps.len() >= MAX_ROOMS && !gaps.contains_key(room) {
            return;
        }
        let of_room = gaps.entry(room.to_owned()).or_default();
        of_room.retain(|other| other.event != gap.event);
        if of_room.len() >= MAX_GAPS {
            of_room.pop_front();
        }
        of_room.push_back(gap);
    }

    /// The gap before the event is asked for again soon, as if it had been found now.
    pub(crate) fn ask_again(&self, room: &RoomId, event: OwnedEventId, now_ms: u64) {
        self.note(room, Gap { event, tries: 0, next_ms: now_ms.saturating_add(FIRST_WAIT_MS) });
    }

    /// A gap whose time has come; it is forgotten unless it is noted again.
    fn take_due(&self, room: &RoomId, now_ms: u64) -> Option<Gap> {
        let mut gaps = self.0.lock();
        let of_room = gaps.get_mut(room)?;
        let at = of_room.iter().position(|gap| gap.next_ms <= now_ms)?;
        let due = of_room.remove(at);
        if of_room.is_empty() {
            gaps.remove(room);
        }
        due
    }
}

impl Core {
    /// If something that the event follows is not in the graph, it is asked for again later.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(super) fn note_gap(&self, room: &Room, pdu: &Pdu) -> Result<(), Error> {
        if self.has_gap(pdu)? {
            self.inbound.gaps.ask_again(room.id(), pdu.event_id().to_owned(), self.now_ms());
        }
        Ok(())
    }

    fn has_gap(&self, pdu: &Pdu) -> Result<bool, Error> {
        for prev in pdu.prev_events() {
            if !self.is_in_graph(pdu.room_id(), prev)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// One gap of the room whose time has come is asked for again, of the server that was just heard from.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(super) async fn close_a_gap(self: &Arc<Self>, origin: &ServerName, room_id: &RoomId) -> Result<(), Error> {
        let (gap, event) = loop {
            let Some(gap) = self.inbound.gaps.take_due(room_id, self.now_ms()) else { return Ok(()) };
            // Most have closed by themselves meanwhile.
            if let Some(event) = self.load_event(&gap.event)?
                && self.has_gap(&event.pdu)?
            {
                break (gap, event);
            }
        };
        let Some(room) = self.find_room(room_id)?.filter(|room| room.has_server(&self.server_name)) else {
            return Ok(());
        };
        let turn = self.inbound.room_turn(room_id);
        let _turn = turn.lock().await;
        self.on_errand(origin, self.fetch_missing_history(origin, &room, &event.pdu, true)).await?;
        let tries = gap.tries.saturating_add(1);
        if tries < MAX_TRIES && self.has_gap(&event.pdu)? {
            let next_ms = self.now_ms().saturating_add(FIRST_WAIT_MS.saturating_mul(1 << tries));
            self.inbound.gaps.note(room_id, Gap { event: gap.event, tries, next_ms });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_bounded_and_taken_when_their_time_has_come() {
        let gaps = Gaps::default();
        let room = |number: usize| OwnedRoomId::try_from(format!("!r{number}:a.example")).unwrap();
        let gap = |number: u64| Gap {
            event: OwnedEventId::try_from(format!("$e{number}:a.example")).unwrap(),
            tries: 0,
            next_ms: number,
        };
        for number in 0..100 {
            gaps.note(&room(0), gap(number));
        }
        assert!(gaps.take_due(&room(0), 35).is_none(), "the oldest are forgotten");
        assert_eq!(gaps.take_due(&room(0), 36).unwrap().next_ms, 36);
        assert!(gaps.take_due(&room(0), 36).is_none());
        for number in 0..2 * MAX_ROOMS {
            gaps.note(&room(number), gap(1));
        }
        assert_eq!(gaps.0.lock().len(), MAX_ROOMS);
    }
}

//! A room's timeline between two positions, and the states at its ends.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use matron_storage::{Key, KeyRange, Order, StreamPos, Table};
use ruma::{OwnedEventId, RoomId};

use crate::{
    Core, Error,
    rooms::{EventRef, GroupId, StateKey, StateMap, state_map::difference},
};

/// A row of `room_timeline`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimelineRow {
    /// Where it stands, in timeline order.
    pub timeline: u64,
    /// The event.
    pub event_id: OwnedEventId,
    /// The room's current state after it.
    pub group_after: GroupId,
}

/// The timeline order of a stream position.
#[must_use]
pub fn timeline_of(position: StreamPos) -> u64 {
    (1 << 63) | position.0
}

/// The stream position of a timeline order at which this server was told of an event; backwards of [`timeline_of`].
#[must_use]
pub(super) fn position_of(timeline: u64) -> StreamPos {
    StreamPos(timeline & !(1 << 63))
}

/// The key range of a room's timeline, `from` inclusive, `to` exclusive.
#[must_use]
pub fn timeline_range(room: &RoomId, from: u64, to: u64) -> KeyRange {
    KeyRange::between(Key::new().text(room).number(from), Key::new().text(room).number(to))
}

/// Reads a row.
#[must_use]
pub fn read_row(key: &[u8], value: &[u8]) -> Option<TimelineRow> {
    // The room's id and its end come first; the number is what is left.
    let timeline = u64::from_be_bytes(*key.last_chunk::<8>()?);
    let at = value.iter().position(|byte| *byte == 0)?;
    let (id, rest) = value.split_at_checked(at)?;
    let group = rest.get(1..)?.first_chunk::<16>()?;
    Some(TimelineRow {
        timeline,
        event_id: std::str::from_utf8(id).ok()?.try_into().ok()?,
        group_after: GroupId(*group),
    })
}

/// How many rows at the end of a timeline are remembered.
const TAIL: usize = 32;

/// The end of a room's timeline: what all who wait for its next event need.
#[derive(Debug)]
pub(crate) struct Tail {
    /// Newest first.
    rows: Vec<TimelineRow>,
    /// Nothing is before these.
    is_whole: bool,
}

impl Tail {
    /// The rows in `(after, to)`, newest first, if they are all here.
    fn newest(&self, after: u64, to: u64, limit: usize) -> Option<&[TimelineRow]> {
        let from = self.rows.partition_point(|row| row.timeline >= to);
        let rows = self.rows.get(from..).unwrap_or_default();
        let found = rows.iter().take(limit).take_while(|row| row.timeline > after).count();
        let reaches = || self.rows.last().is_some_and(|oldest| oldest.timeline <= after.saturating_add(1));
        (found == limit || self.is_whole || reaches()).then(|| rows.get(..found).unwrap_or_default())
    }
}

/// The newest part of a timeline.
#[derive(Debug, Default)]
pub struct Window {
    /// What the user may see, oldest first.
    pub events: Vec<EventRef>,
    /// Whether there is more between the start and these.
    pub limited: bool,
    /// The timeline order of the oldest event shown, or else of the oldest row that was looked at.
    pub start: u64,
    /// The timeline order behind the newest that could be shown.
    pub end: u64,
    /// The state before the start.
    pub state_at_start: StateMap,
    /// The name of the state at the end of the span.
    pub group_at_end: GroupId,
    /// The state at the end of the span.
    pub state_at_end: StateMap,
}

impl Window {
    /// Where to read on backwards; nothing where the room begins.
    pub(crate) fn prev_batch(&self) -> Option<String> {
        let begins = self.events.first().is_some_and(|first| first.pdu.kind() == "m.room.create");
        (!begins).then(|| format!("t{}", self.start))
    }

    /// As [`Window::prev_batch`]; where the room begins, its end: SyTest wants a token there too, and one with which a page
    /// holds something, as Synapse gives it. Clients know such a page's events already, and find no more behind them.
    pub(crate) fn prev_batch_or_end(&self) -> String {
        self.prev_batch().unwrap_or_else(|| format!("t{}", self.end))
    }

    /// The state events that a client needs beside the timeline's own to follow the room from `then` to the end of
    /// the span: of each key the newest, if the timeline does not hold it, else what was before the timeline.
    pub(crate) fn state_beside(&self, then: Option<&StateMap>) -> BTreeMap<StateKey, Arc<OwnedEventId>> {
        let told = |id: &OwnedEventId| self.events.iter().any(|event| event.id() == id);
        let mut beside = BTreeMap::new();
        let mut add = |key: &StateKey, newest: Option<&Arc<OwnedEventId>>| {
            let newest = newest.filter(|id| !told(id));
            let before = || self.state_at_start.get(key).filter(|id| !told(id));
            let known = then.and_then(|then| then.get(key));
            if let Some(id) = newest.or_else(before).filter(|id| Some(*id) != known) {
                beside.insert(key.clone(), Arc::clone(id));
            }
        };
        let Some(then) = then else {
            for (key, id) in &self.state_at_end {
                add(key, Some(id));
            }
            for (key, _) in difference(&self.state_at_end, &self.state_at_start) {
                if !self.state_at_end.contains_key(&key) {
                    add(&key, None);
                }
            }
            return beside;
        };
        let changes = difference(then, &self.state_at_end).into_iter().chain(difference(then, &self.state_at_start));
        for (key, _) in changes {
            add(&key, self.state_at_end.get(&key));
        }
        beside
    }
}

impl Core {
    /// At most `limit` rows of the room's timeline before `to`, newest first, none at or before `after`.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn timeline_rows(
        &self,
        room: &RoomId,
        after: u64,
        to: u64,
        order: Order,
        limit: usize,
    ) -> Result<Vec<TimelineRow>, Error> {
        let range = timeline_range(room, after.saturating_add(1), to);
        Ok(self
            .store
            .scan(Table::RoomTimeline, &range, order, limit)?
            .iter()
            .filter_map(|(key, value)| read_row(key, value))
            .collect())
    }

    /// The room's timeline as it is now. What is committed later may or may not be seen by it.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(crate) fn timeline<'a>(&'a self, room: &'a RoomId) -> Result<RoomTimeline<'a>, Error> {
        let scope = Key::new().text(room);
        let mark = self.store.mark(Table::RoomTimeline, scope.as_bytes());
        let tail = self.rooms.tails.get_or_read(room, mark, || {
            let rows = self.store.scan(Table::RoomTimeline, &scope.prefix(), Order::Descending, TAIL)?;
            let is_whole = rows.len() < TAIL;
            Ok(Arc::new(Tail { rows: rows.iter().filter_map(|(key, value)| read_row(key, value)).collect(), is_whole }))
        })?;
        Ok(RoomTimeline { core: self, room, tail })
    }

    /// The room's current state as of a stream position; empty before its first event.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn state_as_of(&self, room: &RoomId, position: StreamPos) -> Result<StateMap, Error> {
        self.load_state_group(self.timeline(room)?.group_as_of(position)?)
    }

    /// The newest events of the room in `(after, to]` that `keep` lets through, at most `limit`.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(crate) fn window(
        &self,
        room: &RoomId,
        after: Option<StreamPos>,
        to: StreamPos,
        limit: usize,
        mut keep: impl FnMut(&EventRef) -> Result<bool, Error>,
    ) -> Result<Window, Error> {
        const PAGE: usize = 64;
        const LOOKED_AT: usize = 1024;
        // History from before a gap is never told by itself: the timeline begins at 2^63.
        let mut floor = after.map_or(1 << 63, timeline_of);
        let mut end = timeline_of(to).saturating_add(1);
        let mut window = Window { start: end, end, ..Window::default() };
        // Nor is a gap in the middle stepped over: who wants to know what is behind it pages back.
        if let Some((order, _)) = self.open_gap(room, floor, timeline_of(to))? {
            floor = order.saturating_sub(1);
            window.limited = true;
        }
        let now_ms = self.now_ms();
        let mut first: Option<TimelineRow> = None;
        let mut looked_at = 0;
        let timeline = self.timeline(room)?;
        'pages: loop {
            let page = limit.saturating_add(1).clamp(2, PAGE);
            let rows = timeline.newest(floor, end, page)?;
            let full = rows.len() == page;
            for row in &*rows {
                if looked_at >= LOOKED_AT {
                    window.limited = true;
                    break 'pages;
                }
                looked_at += 1;
                end = row.timeline;
                if let Some(event) = self.load_event(&row.event_id)?
                    && event.is_shown(now_ms)
                    && keep(&event)?
                {
                    if window.events.len() >= limit {
                        window.limited = true;
                        break 'pages;
                    }
                    window.events.push(event);
                    first = Some(row.clone());
                } else if window.events.is_empty() {
                    window.start = row.timeline;
                }
            }
            if !full {
                break;
            }
        }
        window.events.reverse();
        window.group_at_end = timeline.group_as_of(to)?;
        window.state_at_end = self.load_state_group(window.group_at_end)?;
        window.state_at_start = window.state_at_end.clone();
        if let Some(first) = first {
            window.start = first.timeline;
            let group = timeline.group_before(&first)?;
            if group != window.group_at_end {
                window.state_at_start = self.load_state_group(group)?;
            }
        }
        Ok(window)
    }
}

/// A room's timeline, its end in memory.
#[derive(Debug)]
pub(crate) struct RoomTimeline<'a> {
    core: &'a Core,
    room: &'a RoomId,
    tail: Arc<Tail>,
}

impl RoomTimeline<'_> {
    /// The newest of the rows between `after` and `to`, newest first, at most `limit`: from memory if they are near the end.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(crate) fn newest(&self, after: u64, to: u64, limit: usize) -> Result<Cow<'_, [TimelineRow]>, Error> {
        match self.tail.newest(after, to, limit) {
            Some(rows) => Ok(Cow::Borrowed(rows)),
            None => self.core.timeline_rows(self.room, after, to, Order::Descending, limit).map(Cow::Owned),
        }
    }

    /// The room's current state as of a stream position; the empty one before its first event.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(crate) fn group_as_of(&self, position: StreamPos) -> Result<GroupId, Error> {
        let rows = self.newest(0, timeline_of(position).saturating_add(1), 1)?;
        // A row from before this server was in the room (backfill) says nothing of the current state.
        let row = rows.first().filter(|row| row.timeline >= 1 << 63);
        Ok(row.map_or(GroupId::EMPTY, |row| row.group_after))
    }

    /// The room's current state before a row of it.
    fn group_before(&self, row: &TimelineRow) -> Result<GroupId, Error> {
        if let Some(before) = self.newest(1 << 63, row.timeline, 1)?.first() {
            return Ok(before.group_after);
        }
        Ok(self.core.load_event(&row.event_id)?.map_or(GroupId::EMPTY, |event| event.record.state_before))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tail(rows: &[u64], is_whole: bool) -> Tail {
        let row = |timeline: &u64| TimelineRow {
            timeline: *timeline,
            event_id: "$e".try_into().unwrap(),
            group_after: GroupId::EMPTY,
        };
        Tail { rows: rows.iter().map(row).collect(), is_whole }
    }

    fn newest(tail: &Tail, after: u64, to: u64, limit: usize) -> Option<Vec<u64>> {
        Some(tail.newest(after, to, limit)?.iter().map(|row| row.timeline).collect())
    }

    #[test]
    fn the_end_of_a_timeline_answers_for_what_it_holds_and_for_nothing_else() {
        let some = tail(&[9, 7, 4], false);
        assert_eq!(newest(&some, 4, 99, 9), Some(vec![9, 7]));
        assert_eq!(newest(&some, 3, 99, 9), Some(vec![9, 7, 4]));
        assert_eq!(newest(&some, 2, 99, 9), None, "3 may be there too");
        assert_eq!(newest(&some, 0, 99, 3), Some(vec![9, 7, 4]), "no more were asked for");
        assert_eq!(newest(&some, 0, 9, 2), Some(vec![7, 4]), "the end is left out");
        assert_eq!(newest(&some, 0, 4, 1), None);
        assert_eq!(newest(&some, 7, 8, 1), Some(vec![]));
        let whole = tail(&[9, 7], true);
        assert_eq!(newest(&whole, 0, 99, 9), Some(vec![9, 7]));
        assert_eq!(newest(&whole, 0, 7, 1), Some(vec![]));
    }
}

//! When something under a key last changed, so that what was read can be remembered and is never stale.
//!
//! INVARIANT: a change is marked after readers can see it and before the store's position moves to it. Whoever takes
//! the mark first and reads afterwards holds a value that is good as long as the mark stays the same; and whoever
//! samples the position first finds every change at or below it marked.

use std::{
    hash::Hasher as _,
    sync::atomic::{AtomicU64, Ordering},
};

use crate::{Batch, Mark, Op, StreamPos, Table, tables::CATALOGUE};

/// How many cells there are; two keys that share one only cause a read that was not needed.
const CELLS: u64 = 1 << 13;

#[derive(Debug, Default)]
struct Cell {
    version: AtomicU64,
    position: AtomicU64,
}

impl Cell {
    fn touch(&self, position: StreamPos) {
        self.position.fetch_max(position.0, Ordering::AcqRel);
        self.version.fetch_add(1, Ordering::AcqRel);
    }

    fn read(&self) -> Mark {
        Mark {
            version: self.version.load(Ordering::Acquire),
            position: StreamPos(self.position.load(Ordering::Acquire)),
        }
    }
}

/// What a cell stands for.
#[derive(Clone, Copy)]
enum What {
    /// Some key of the table.
    Table,
    /// Some key that begins with this text.
    Scope,
    /// This key.
    Key,
    /// Keys of the table that are not known one by one.
    Sweep,
    /// Keys that begin with this text and are not known one by one.
    ScopeSweep,
}

/// The marks of one store. Bounded.
#[derive(Debug)]
pub(crate) struct Marks(Box<[Cell]>);

/// Which cells a group of batches touches.
#[derive(Debug, Default)]
pub(crate) struct Touched(Vec<u32>);

impl Marks {
    /// Nothing changed since `position`; of what was before, nothing is known.
    pub(crate) fn new(position: StreamPos) -> Self {
        let size = usize::try_from(CELLS).unwrap_or(0).saturating_add(CATALOGUE.len().saturating_mul(2));
        let cells: Box<[Cell]> = (0..size).map(|_| Cell::default()).collect();
        for cell in &cells {
            cell.position.store(position.0, Ordering::Release);
        }
        Self(cells)
    }

    /// When something under `prefix` last changed: an empty one, a key's first text with its end, or a whole key.
    pub(crate) fn read(&self, table: Table, prefix: &[u8]) -> Mark {
        let mut mark = Mark::default();
        let mut add = |what, bytes| {
            let Some(cell) = usize::try_from(index(table, what, bytes)).ok().and_then(|at| self.0.get(at)) else {
                return;
            };
            let one = cell.read();
            mark.version = mark.version.wrapping_add(one.version);
            mark.position = mark.position.max(one.position);
        };
        if prefix.is_empty() {
            add(What::Table, prefix);
            return mark;
        }
        add(What::Sweep, &[]);
        match scope(prefix) {
            Some(scope) if scope.len() == prefix.len() => add(What::Scope, scope),
            Some(scope) => {
                add(What::ScopeSweep, scope);
                add(What::Key, prefix);
            }
            None => add(What::Key, prefix),
        }
        mark
    }

    /// Marks what a group changed, now that it is visible.
    pub(crate) fn touch(&self, touched: &Touched, position: StreamPos) {
        for at in &touched.0 {
            if let Some(cell) = usize::try_from(*at).ok().and_then(|at| self.0.get(at)) {
                cell.touch(position);
            }
        }
    }
}

impl Touched {
    /// What this batch touches too.
    pub(crate) fn add(&mut self, batch: &Batch) {
        for op in &batch.ops {
            match op {
                Op::Put { table, key, key_slot: Some(_), .. } => {
                    // The key is not known before the commit.
                    self.push(*table, What::Table, &[]);
                    match scope(key).filter(|scope| scope.len() < key.len()) {
                        Some(scope) => {
                            self.push(*table, What::Scope, scope);
                            self.push(*table, What::ScopeSweep, scope);
                        }
                        None => self.push(*table, What::Sweep, &[]),
                    }
                }
                Op::Put { table, key, .. } | Op::Delete { table, key } => {
                    self.push(*table, What::Table, &[]);
                    match scope(key) {
                        Some(scope) => {
                            self.push(*table, What::Scope, scope);
                            if scope.len() < key.len() {
                                self.push(*table, What::Key, key);
                            }
                        }
                        None => self.push(*table, What::Key, key),
                    }
                }
                Op::DeleteRange { table, range } => {
                    self.push(*table, What::Table, &[]);
                    let within = scope(&range.start).filter(|scope| {
                        // The last key before the end of a scope's own range is still the scope's.
                        range.end.as_deref().is_some_and(|end| end.starts_with(scope) || ends(end, scope))
                    });
                    match within {
                        Some(scope) => {
                            self.push(*table, What::Scope, scope);
                            self.push(*table, What::ScopeSweep, scope);
                        }
                        None => self.push(*table, What::Sweep, &[]),
                    }
                }
            }
        }
    }

    fn push(&mut self, table: Table, what: What, bytes: &[u8]) {
        let at = u32::try_from(index(table, what, bytes)).unwrap_or(0);
        if self.0.last() != Some(&at) {
            self.0.push(at);
        }
    }
}

/// Whether `end` is the first key behind everything that begins with `scope`.
fn ends(end: &[u8], scope: &[u8]) -> bool {
    // A scope ends with a zero byte, so its successor has a one there.
    let (Some((last, head)), Some((_, wanted))) = (end.split_last(), scope.split_last()) else { return false };
    *last == 1 && head == wanted
}

/// A key's first text, with the byte that ends it.
fn scope(key: &[u8]) -> Option<&[u8]> {
    let end = key.iter().position(|byte| *byte == 0)?;
    key.get(..=end)
}

fn index(table: Table, what: What, bytes: &[u8]) -> u64 {
    let number = u64::try_from(table.index()).unwrap_or(0);
    match what {
        What::Table => return CELLS.saturating_add(number.saturating_mul(2)),
        What::Sweep => return CELLS.saturating_add(number.saturating_mul(2)).saturating_add(1),
        What::Scope | What::Key | What::ScopeSweep => {}
    }
    let mut hasher = std::hash::DefaultHasher::new();
    hasher.write_u8(table as u8);
    hasher.write_u8(what as u8);
    hasher.write(bytes);
    hasher.finish() % CELLS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Key, KeyRange, SlotForm};

    fn marks_after(change: impl FnOnce(&mut Batch)) -> Marks {
        let marks = Marks::new(StreamPos(5));
        let mut batch = Batch::new();
        change(&mut batch);
        let mut touched = Touched::default();
        touched.add(&batch);
        marks.touch(&touched, StreamPos(9));
        marks
    }

    fn moved(marks: &Marks, table: Table, prefix: &Key) -> bool {
        let mark = marks.read(table, prefix.as_bytes());
        assert_eq!(mark.version > 0, mark.position == StreamPos(9), "both move, or neither");
        mark.version > 0
    }

    #[test]
    fn a_change_moves_its_key_its_first_text_and_its_table_and_nothing_else() {
        let key = Key::new().text("!room").text("@user");
        let marks = marks_after(|batch| {
            batch.put(Table::RoomUser, key.clone(), "x");
        });
        assert!(moved(&marks, Table::RoomUser, &key));
        assert!(moved(&marks, Table::RoomUser, &Key::new().text("!room")));
        assert!(moved(&marks, Table::RoomUser, &Key::new()));
        assert!(!moved(&marks, Table::RoomUser, &Key::new().text("!other")));
        assert!(!moved(&marks, Table::RoomUser, &Key::new().text("!room").text("@other")));
        assert!(!moved(&marks, Table::UserRoom, &key));
    }

    #[test]
    fn a_key_that_gets_its_position_at_the_commit_moves_all_that_it_may_become() {
        let room = Key::new().text("!room");
        let marks = marks_after(|batch| {
            let index = batch.reserve_position();
            let (key, slot) = room.clone().position(index, SlotForm::Timeline);
            batch.put_at(Table::RoomTimeline, key, Some(slot), "x", None);
            let (key, slot) = Key::new().position(index, SlotForm::Plain);
            batch.put_at(Table::DeviceListStream, key, Some(slot), "x", None);
        });
        assert!(moved(&marks, Table::RoomTimeline, &room));
        assert!(moved(&marks, Table::RoomTimeline, &room.number(1 << 63)));
        assert!(!moved(&marks, Table::RoomTimeline, &Key::new().text("!other")));
        assert!(moved(&marks, Table::DeviceListStream, &Key::new()));
        assert!(moved(&marks, Table::DeviceListStream, &Key::new().number(77)));
    }

    #[test]
    fn a_range_within_one_text_moves_all_keys_of_it() {
        let room = Key::new().text("!room");
        for range in [room.prefix(), KeyRange::between(room.clone(), room.clone().number(7))] {
            let marks = marks_after(|batch| {
                batch.delete_range(Table::RoomTimeline, range);
            });
            assert!(moved(&marks, Table::RoomTimeline, &room));
            assert!(moved(&marks, Table::RoomTimeline, &room.clone().number(3)));
            assert!(!moved(&marks, Table::RoomTimeline, &Key::new().text("!other")));
        }
    }

    #[test]
    fn a_range_over_many_texts_moves_the_whole_table() {
        for range in [KeyRange::all(), KeyRange::between(Key::new(), Key::new().number(70_000))] {
            let marks = marks_after(|batch| {
                batch.delete_range(Table::DeviceListStream, range);
            });
            for key in
                [Key::new(), Key::new().text("any"), Key::new().text("any").text("thing"), Key::new().number(1 << 60)]
            {
                assert!(moved(&marks, Table::DeviceListStream, &key));
            }
            assert!(!moved(&marks, Table::RoomUser, &Key::new()));
        }
    }
}

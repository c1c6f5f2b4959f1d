//! Positions: contiguous, lasting, and never ahead of what is visible.

use std::sync::atomic::{AtomicBool, Ordering};

use super::{Subject, all, commit, key};
use crate::{Batch, CommitError, Key, KeyRange, Order, SlotForm, StoreError, StreamPos, Table};

/// Each batch follows the one before it, in this process and the next.
pub fn positions_are_contiguous_and_outlive_the_process(subject: &Subject) {
    let mut store = subject.start();
    assert_eq!(store.position(), StreamPos(0));
    let mut expected = 0;
    for round in 0..4 {
        for positions in [1, 3, 0, 7] {
            // A batch may have positions and nothing else.
            let committed = store.submit(Batch { positions, ..Batch::new() }).wait().unwrap();
            let first = if positions == 0 { expected } else { expected + 1 };
            assert_eq!((committed.first, committed.count), (StreamPos(first), positions), "round {round}");
            expected += u64::from(positions);
            assert_eq!((committed.last(), store.position()), (StreamPos(expected), StreamPos(expected)));
        }
        store = subject.restart(store);
        assert_eq!(store.position(), StreamPos(expected));
    }
}

/// No gap where a batch was refused, even in the middle of a group.
pub fn refused_batches_take_no_positions(subject: &Subject) {
    let store = subject.start();
    let pending: Vec<_> = (0_u64..90)
        .map(|number| {
            let mut batch = Batch { positions: 2, ..Batch::new() };
            if number % 2 == 0 {
                batch.expect_equals(Table::Misc, "nothing", "");
            }
            store.submit(batch)
        })
        .collect();
    let mut next = 1;
    for pending in pending {
        if let Ok(committed) = pending.wait() {
            assert_eq!(committed.first, StreamPos(next));
            next += 2;
        }
    }
    assert_eq!((next, store.position()), (91, StreamPos(90)));
}

/// Plain, for the timeline and for what came before it; in keys and in values.
pub fn slots_hold_the_positions_of_their_batch(subject: &Subject) {
    const MIDDLE: u64 = 1 << 63;
    let store = subject.start();
    commit(&*store, |batch| batch.positions = 4).unwrap();
    commit(&*store, |batch| {
        let (one, two) = (batch.reserve_position(), batch.reserve_position());
        for (index, form) in [(one, SlotForm::Plain), (two, SlotForm::Timeline), (two, SlotForm::Backfill)] {
            let (key, key_slot) = Key::new().text("r").position(index, form);
            let (value, value_slot) = Key::new().position(one, SlotForm::Plain);
            batch.put_at(Table::RoomTimeline, key, Some(key_slot), value, Some(value_slot));
        }
    })
    .unwrap();
    let expected = [5, MIDDLE - 6, MIDDLE + 6].map(|number| (Vec::from(Key::new().text("r").number(number)), key(5)));
    assert_eq!(all(&*store, Table::RoomTimeline), expected);
}

/// A mistake in one batch harms no other.
pub fn slot_out_of_bounds_refuses_its_batch_alone(subject: &Subject) {
    let store = subject.start();
    for (reserved, offset) in [(0, 0), (1, 1), (1, usize::MAX)] {
        let (_, mut slot) = Key::new().position(0, SlotForm::Plain);
        slot.offset = offset;
        let mut bad = Batch { positions: reserved, ..Batch::new() };
        bad.put(Table::Misc, "bad", "").put_at(Table::Misc, [0; 8], Some(slot), "", None);
        let mut good = Batch { positions: 1, ..Batch::new() };
        good.put(Table::RoomMeta, "good", "");
        let pending = [good.clone(), bad, good].map(|batch| store.submit(batch));
        let [before, bad, after] = pending.map(crate::Pending::wait);
        assert!(matches!(bad, Err(CommitError::Store(StoreError::Engine(_)))));
        assert_eq!(before.unwrap().first.0 + 1, after.unwrap().first.0);
    }
    assert!(all(&*store, Table::Misc).is_empty());
}

/// Whoever reads a position finds every row up to it; whoever was acknowledged finds the position behind his own.
pub fn everything_up_to_the_position_is_visible(subject: &Subject) {
    let store = subject.start();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut last = StreamPos(0);
            while !done.load(Ordering::Acquire) {
                let position = store.position();
                assert!(position >= last, "the position went back");
                last = position;
                let range = KeyRange::between(key(0), key(position.0 + 1));
                let rows = store.scan(Table::DeviceListStream, &range, Order::Ascending, usize::MAX).unwrap();
                assert_eq!(u64::try_from(rows.len()).unwrap(), position.0, "a row below the position is missing");
            }
        });
        let writers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    for _ in 0..20 {
                        let committed = commit(&*store, |batch| {
                            let (key, slot) = Key::new().position(batch.reserve_position(), SlotForm::Plain);
                            batch.put_at(Table::DeviceListStream, key, Some(slot), "", None);
                        });
                        assert!(store.position() >= committed.unwrap().last());
                    }
                })
            })
            .collect();
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        done.store(true, Ordering::Release);
        reader.join().unwrap();
    });
    assert_eq!(store.position(), StreamPos(80));
}

/// Whoever reads after taking a mark may keep what was read while the mark stays, and is never behind a position.
pub fn what_is_remembered_under_an_unmoved_mark_is_not_stale(subject: &Subject) {
    let store = subject.start();
    let room = Key::new().text("!room");
    let prefix = room.prefix();
    let quiet = store.mark(Table::RoomReceipt, Key::new().text("!other").as_bytes());
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut remembered: Option<(crate::Mark, usize)> = None;
            while !done.load(Ordering::Acquire) {
                let position = store.position();
                let mark = store.mark(Table::RoomReceipt, room.as_bytes());
                let rows = match remembered {
                    Some((then, rows)) if then.version == mark.version => rows,
                    _ => store.scan(Table::RoomReceipt, &prefix, Order::Ascending, usize::MAX).unwrap().len(),
                };
                remembered = Some((mark, rows));
                let rows = u64::try_from(rows).unwrap();
                assert!(rows >= position.0, "a row below the position is missing");
            }
        });
        for _ in 0..60 {
            let committed = commit(&*store, |batch| {
                let (key, slot) = room.clone().position(batch.reserve_position(), SlotForm::Plain);
                batch.put_at(Table::RoomReceipt, key, Some(slot), "", None);
            });
            let mark = store.mark(Table::RoomReceipt, room.as_bytes());
            assert_eq!(mark.position, committed.unwrap().last());
        }
        done.store(true, Ordering::Release);
        reader.join().unwrap();
    });
    assert_eq!(store.mark(Table::RoomReceipt, Key::new().text("!other").as_bytes()), quiet);
    let before = store.mark(Table::RoomReceipt, room.as_bytes());
    commit(&*store, |batch| {
        batch.delete_range(Table::RoomReceipt, prefix.clone());
    })
    .unwrap();
    assert_ne!(store.mark(Table::RoomReceipt, room.as_bytes()).version, before.version, "a deletion is a change");
}

/// It changes nothing and flushes nothing, and waits for those before it.
pub fn empty_batch_answers_with_the_position(subject: &Subject) {
    let store = subject.start();
    let before = store.submit(Batch { positions: 5, ..Batch::new() });
    let committed = store.submit(Batch::new()).wait().unwrap();
    assert_eq!((committed.first, committed.count, committed.last()), (StreamPos(5), 0, StreamPos(5)));
    before.wait().unwrap();
    let flushes = store.flushes();
    store.submit(Batch::new()).wait().unwrap();
    assert_eq!(store.flushes(), flushes);
}

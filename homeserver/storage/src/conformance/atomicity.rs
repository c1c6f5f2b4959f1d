//! Batches: whole or not at all, under expectations, in groups.

use std::sync::atomic::{AtomicBool, Ordering};

use super::{Subject, all, commit, key};
use crate::{Batch, CommitError, KeyRange, Order, Table};

/// A conflict or an error leaves nothing of a batch behind.
pub fn batch_is_applied_whole_or_not_at_all(subject: &Subject) {
    let store = subject.start();
    commit(&*store, |batch| {
        batch.put(Table::Misc, "a", "1").put(Table::RoomMeta, "b", "2");
    })
    .unwrap();
    let refused = commit(&*store, |batch| {
        batch.put(Table::Misc, "a", "9").put(Table::Misc, "c", "9").delete(Table::RoomMeta, "b");
        batch.expect_absent(Table::RoomMeta, "b");
    });
    assert!(matches!(refused, Err(CommitError::Conflict(0))));
    assert_eq!(store.get(Table::Misc, b"a").unwrap().unwrap(), b"1");
    assert_eq!(store.get(Table::Misc, b"c").unwrap(), None);
    assert_eq!(store.get_many(Table::RoomMeta, &[b"x", b"b"]).unwrap(), [None, Some(b"2".to_vec())]);
}

/// Every kind of expectation, and the index of the one that failed.
pub fn expectations_hold_or_the_batch_is_refused(subject: &Subject) {
    let store = subject.start();
    commit(&*store, |batch| {
        batch.put(Table::Misc, "k", "v").put(Table::Misc, "empty", "");
    })
    .unwrap();
    let attempt = |build: &dyn Fn(&mut Batch)| commit(&*store, |batch| build(batch));
    assert!(attempt(&|batch| _ = batch.expect_absent(Table::Misc, "none")).is_ok());
    assert!(attempt(&|batch| _ = batch.expect_equals(Table::Misc, "k", "v")).is_ok());
    assert!(attempt(&|batch| _ = batch.expect_equals(Table::Misc, "empty", "")).is_ok());
    for (index, build) in [
        (0, (&|batch: &mut Batch| _ = batch.expect_absent(Table::Misc, "k")) as &dyn Fn(&mut Batch)),
        (0, &|batch| _ = batch.expect_absent(Table::Misc, "empty")),
        (0, &|batch| _ = batch.expect_equals(Table::Misc, "k", "w")),
        (0, &|batch| _ = batch.expect_equals(Table::Misc, "none", "")),
        (1, &|batch| _ = batch.expect_equals(Table::Misc, "k", "v").expect_equals(Table::Misc, "k", "")),
        // Expectations speak of what was there before the batch.
        (0, &|batch| _ = batch.put(Table::Misc, "new", "").expect_equals(Table::Misc, "new", "")),
    ] {
        let Err(CommitError::Conflict(found)) = attempt(build) else { panic!("expectation {index} held") };
        assert_eq!(found, index);
    }
}

/// Two rows that are always written together are always read together.
pub fn readers_never_see_half_a_batch(subject: &Subject) {
    let store = subject.start();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                let rows = store.scan(Table::Misc, &KeyRange::all(), Order::Ascending, 9).unwrap();
                assert!(rows.is_empty() || rows.len() == 2, "one row of two");
                assert!(rows.windows(2).all(|pair| pair.iter().all(|row| row.1 == pair.first().unwrap().1)));
            }
        });
        for number in 0..60 {
            commit(&*store, |batch| {
                batch.put(Table::Misc, "a", key(number)).put(Table::Misc, "z", key(number));
            })
            .unwrap();
        }
        done.store(true, Ordering::Release);
        reader.join().unwrap();
    });
}

/// Eight threads count together; no step is lost.
pub fn rivals_of_one_key_win_one_after_the_other(subject: &Subject) {
    const THREADS: u64 = 8;
    const STEPS: u64 = 12;
    let store = subject.start();
    commit(&*store, |batch| _ = batch.put(Table::Misc, "count", key(0))).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                let mut done = 0;
                while done < STEPS {
                    let old = store.get(Table::Misc, b"count").unwrap().unwrap();
                    let number = u64::from_be_bytes(old.as_slice().try_into().unwrap());
                    match commit(&*store, |batch| {
                        batch.expect_equals(Table::Misc, "count", old).put(Table::Misc, "count", key(number + 1));
                        batch.reserve_position();
                    }) {
                        Ok(_) => done += 1,
                        Err(CommitError::Conflict(0)) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            });
        }
    });
    assert_eq!(store.get(Table::Misc, b"count").unwrap().unwrap(), key(THREADS * STEPS));
    assert_eq!(store.position().0, THREADS * STEPS);
}

/// Its neighbours in the same group are committed.
pub fn conflicting_batch_is_refused_alone(subject: &Subject) {
    let store = subject.start();
    commit(&*store, |batch| _ = batch.put(Table::Misc, "taken", "")).unwrap();
    let pending: Vec<_> = (0..100)
        .map(|number| {
            let mut batch = Batch::new();
            batch.put(Table::RoomMeta, key(number), "");
            if number % 3 == 0 {
                batch.expect_absent(Table::Misc, "taken");
            }
            store.submit(batch)
        })
        .collect();
    for (number, pending) in (0..100).zip(pending) {
        assert_eq!(matches!(pending.wait(), Err(CommitError::Conflict(0))), number % 3 == 0);
        assert_eq!(store.get(Table::RoomMeta, &key(number)).unwrap().is_some(), number % 3 != 0);
    }
}

/// Order of submission is order of commit, in one group or in many.
pub fn later_batches_of_a_group_see_the_earlier_ones(subject: &Subject) {
    let store = subject.start();
    for round in 0..20 {
        let mut first = Batch::new();
        first.expect_absent(Table::Misc, key(round)).put(Table::Misc, key(round), "1");
        let rival = first.clone();
        let mut second = Batch::new();
        second.expect_equals(Table::Misc, key(round), "1").delete(Table::Misc, key(round));
        let again = first.clone();
        let pending = [first, rival, second, again].map(|batch| store.submit(batch));
        assert_eq!(pending.map(|pending| pending.wait().is_ok()), [true, false, true, true]);
    }
}

/// The last change to a key is the one that stays.
pub fn operations_of_a_batch_apply_in_their_order(subject: &Subject) {
    let store = subject.start();
    commit(&*store, |batch| {
        batch.put(Table::Misc, "a", "1").put(Table::Misc, "b", "1").put(Table::Misc, "c", "1");
    })
    .unwrap();
    commit(&*store, |batch| {
        batch.put(Table::Misc, "a", "2").put(Table::Misc, "a", "3").put(Table::Misc, "d", "gone");
        batch.delete_range(Table::Misc, KeyRange::between("b", "z")).put(Table::Misc, "c", "4");
        batch.put(Table::Misc, "e", "1").delete(Table::Misc, "e").delete(Table::Misc, "never there");
    })
    .unwrap();
    assert_eq!(all(&*store, Table::Misc), [(b"a".to_vec(), b"3".to_vec()), (b"c".to_vec(), b"4".to_vec())]);
}

/// Rows that are not on the disk yet are deleted like the others.
pub fn range_deletion_sees_what_the_group_wrote(subject: &Subject) {
    let store = subject.start();
    for round in 0..20 {
        let mut puts = Batch::new();
        puts.put(Table::Misc, [1, round], "").put(Table::Misc, [2, round], "").put(Table::RoomMeta, [1, round], "");
        let mut deletes = Batch::new();
        deletes.delete_range(Table::Misc, KeyRange::between([1], [2]));
        let pending = [puts, deletes].map(|batch| store.submit(batch));
        assert!(pending.into_iter().all(|pending| pending.wait().is_ok()));
    }
    assert_eq!(all(&*store, Table::Misc).len(), 20);
    assert_eq!(all(&*store, Table::RoomMeta).len(), 20);
}

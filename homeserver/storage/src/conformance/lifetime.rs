//! Durability, closing, forgetting, copies.

use super::{Subject, all, commit, count_in_files, key};
use crate::{
    Batch, CommitError, EngineKind, KeyRange, Order, StoreError, StreamPos, Table,
    engine::{self, memory::MemoryStore},
    transfer,
};

/// Far fewer flushes than batches.
pub fn waiting_batches_share_a_flush(subject: &Subject) {
    const BATCHES: u64 = 400;
    let store = subject.start();
    let before = store.flushes();
    let pending: Vec<_> = (0..BATCHES)
        .map(|number| {
            let mut batch = Batch::new();
            batch.put(Table::Misc, key(number), "");
            store.submit(batch)
        })
        .collect();
    pending.into_iter().for_each(|pending| _ = pending.wait().unwrap());
    let flushes = store.flushes() - before;
    assert!(flushes <= BATCHES / 4, "{flushes} flushes for {BATCHES} batches");
}

/// Rows, deletions and the position.
pub fn what_was_acknowledged_is_there_after_reopening(subject: &Subject) {
    if !subject.lasts {
        return;
    }
    for round in 0_u64..5 {
        let store = subject.start();
        assert_eq!(store.position(), StreamPos(round));
        assert_eq!(all(&*store, Table::EventPdu).len(), usize::try_from(round).unwrap());
        assert_eq!(all(&*store, Table::Misc).len(), usize::from(round > 0));
        commit(&*store, |batch| {
            batch.put(Table::EventPdu, key(round), "pdu").delete_range(Table::Misc, KeyRange::all());
            batch.put(Table::Misc, key(round), "").positions = 1;
        })
        .unwrap();
        // Half of the rounds end without a word.
        if round % 2 == 0 {
            store.close();
        }
    }
}

/// Every call answers, most of them with [`StoreError::Closed`].
pub fn closed_store_refuses_and_never_hangs(subject: &Subject) {
    let store = subject.start();
    let before = store.submit(Batch::new());
    store.close();
    store.close();
    before.wait().unwrap();
    assert!(matches!(store.submit(Batch::new()).wait(), Err(CommitError::Store(StoreError::Closed))));
    assert!(matches!(store.get(Table::Misc, b""), Err(StoreError::Closed)));
    assert!(matches!(store.scan(Table::Misc, &KeyRange::all(), Order::Ascending, 1), Err(StoreError::Closed)));
    assert!(matches!(store.maintain(), Err(StoreError::Closed)));
    // A handle that is still held somewhere keeps nobody from opening the store again.
    if subject.lasts {
        subject.start().close();
    }
}

/// Not one byte string of what was deleted is in the raw files, where the engine promises it.
pub fn deleted_rows_leave_no_trace_after_maintenance(subject: &Subject) {
    const MARKER: &str = "potassium-of-bed-7";
    let store = subject.start();
    for table in [Table::EventContent, Table::Misc] {
        for number in 0..300 {
            let length = usize::try_from(number % 40).unwrap() * 50;
            commit(&*store, |batch| {
                batch.put(table, [MARKER.as_bytes(), &key(number)].concat(), format!("{MARKER}{}", "x".repeat(length)));
                batch.put(table, [b"kept".as_slice(), &key(number)].concat(), "y".repeat(length));
            })
            .unwrap();
        }
        // By overwriting, one by one, and by range.
        commit(&*store, |batch| {
            for number in 0..100 {
                let name = [MARKER.as_bytes(), &key(number)].concat();
                batch.put(table, name.clone(), "z").delete(table, name);
            }
        })
        .unwrap();
        let range = crate::Key::new().raw(MARKER.as_bytes()).prefix();
        commit(&*store, |batch| _ = batch.delete_range(table, range)).unwrap();
        assert_eq!(all(&*store, table).len(), 300);
    }
    store.maintain().unwrap();
    if subject.erases {
        assert_eq!(count_in_files(&subject.files, MARKER.as_bytes()), 0);
        assert!(count_in_files(&subject.files, b"kept") > 0, "the search finds what is there");
    }
    assert_eq!(all(&*store, Table::Misc).len(), 300);
}

/// It opens as it is, restores elsewhere, and neither overwrites anything.
pub fn backup_is_a_store_of_its_own(subject: &Subject) {
    let store = subject.start();
    commit(&*store, |batch| {
        (0..3000).for_each(|number| _ = batch.put(Table::EventPdu, key(number), key(number).repeat(50)));
        batch.positions = 9;
    })
    .unwrap();
    let (backup, target) = (subject.scratch.join("backup"), subject.scratch.join("target"));
    store.backup(&backup).unwrap();
    assert!(matches!(store.backup(&backup), Err(StoreError::Foreign(_))));
    // The store goes on, and the backup does not follow.
    commit(&*store, |batch| _ = batch.put(Table::Misc, "later", "")).unwrap();
    let kind = engine::restore(&backup, &target).unwrap();
    assert!(matches!(engine::restore(&backup, &target), Err(StoreError::Foreign(_))));
    for dir in [&backup, &target] {
        let copy = engine::open(kind, dir).unwrap();
        copy.check().unwrap();
        assert_eq!(copy.position(), StreamPos(9));
        assert!(all(&*copy, Table::EventPdu) == all(&*store, Table::EventPdu));
        assert!(all(&*copy, Table::Misc).is_empty());
        commit(&*copy, |batch| batch.positions = 1).unwrap();
        copy.close();
    }
    assert!(matches!(
        engine::restore(&subject.scratch.join("none"), &subject.scratch.join("x")),
        Err(StoreError::Foreign(_))
    ));
}

/// From this engine to memory, to SQLite and back, through a dump and directly.
pub fn dump_loads_into_another_store(subject: &Subject) {
    let store = subject.start();
    commit(&*store, |batch| {
        for number in 0..1000 {
            batch.put(Table::EventPdu, key(number), key(number)).put(Table::Misc, key(number), "");
        }
        batch.positions = 77;
    })
    .unwrap();
    let mut bytes = Vec::new();
    assert_eq!(transfer::dump(&*store, &mut bytes).unwrap(), 2000);
    let memory = MemoryStore::new();
    assert_eq!(transfer::load(&mut bytes.as_slice(), &memory).unwrap(), 2000);
    assert!(matches!(transfer::load(&mut bytes.as_slice(), &memory), Err(StoreError::Foreign(_))));
    let sqlite = engine::open(EngineKind::Sqlite, &subject.scratch.join("sqlite")).unwrap();
    assert_eq!(transfer::copy(&memory, &*sqlite).unwrap(), 2000);
    for copy in [&memory as &dyn crate::Store, &*sqlite] {
        assert_eq!(copy.position(), StreamPos(77));
        for table in [Table::EventPdu, Table::Misc] {
            assert!(all(copy, table) == all(&*store, table));
        }
    }
    assert!(matches!(transfer::copy(&memory, &*store), Err(StoreError::Foreign(_))));
    for cut in [0, 10, 100, bytes.len() - 1] {
        assert!(transfer::load(&mut bytes.get(..cut).unwrap(), &MemoryStore::new()).is_err(), "cut at {cut}");
    }
    let middle = bytes.len() / 2;
    *bytes.get_mut(middle).unwrap() ^= 1;
    assert!(transfer::load(&mut bytes.as_slice(), &MemoryStore::new()).is_err(), "a changed byte");
}

//! What the crate promises, checked from outside.

use matron_storage::{Batch, CommitError, EngineKind, KeyRange, Order, SlotForm, Key, StreamPos, Table, open};

#[test]
fn first_steps() {
    for kind in EngineKind::ALL {
        let dir = tempfile::tempdir().unwrap();
        let store = open(kind, &dir.path().join("store")).unwrap();
        let mut batch = Batch::new();
        let index = batch.reserve_position();
        let (key, slot) = Key::new().text("!a").position(index, SlotForm::Plain);
        batch.put_at(Table::RoomTimeline, key, Some(slot), b"v".to_vec(), None);
        let committed = store.submit(batch).wait().unwrap();
        assert_eq!(committed.first, StreamPos(1));
        let rows = store.scan(Table::RoomTimeline, &KeyRange::all(), Order::Ascending, 9).unwrap();
        assert_eq!(rows, vec![(Key::new().text("!a").number(1).into(), b"v".to_vec())]);
        let mut batch = Batch::new();
        batch.put(Table::Misc, "x", "y").expect_absent(Table::RoomTimeline, Key::new().text("!a").number(1));
        assert!(matches!(store.submit(batch).wait(), Err(CommitError::Conflict(0))));
        assert_eq!(store.get(Table::Misc, b"x").unwrap(), None);
        assert_eq!(store.position(), StreamPos(1));
        store.maintain().unwrap();
        store.close();
    }
}

mod keyring;

//! Any sequence of batches leaves every engine as it leaves a map.

use std::collections::BTreeMap;

use matron_storage::{Batch, CommitError, EngineKind, Expect, KeyRange, Op, Order, Store, Table, open};
use proptest::{collection::vec, prelude::*};

type Model = BTreeMap<(Table, Vec<u8>), Vec<u8>>;

fn table() -> impl Strategy<Value = Table> {
    prop_oneof![Just(Table::Misc), Just(Table::EventPdu)]
}

/// Few keys, so that they meet; the extreme bytes among them.
fn key() -> impl Strategy<Value = Vec<u8>> {
    vec(prop_oneof![Just(0), Just(b'a'), Just(0xFF)], 0..3)
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![4 => vec(any::<u8>(), 0..3), 1 => vec(any::<u8>(), 5000..5001)]
}

fn range() -> impl Strategy<Value = KeyRange> {
    (key(), proptest::option::of(key())).prop_map(|(start, end)| KeyRange { start, end })
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (table(), key(), value())
            .prop_map(|(table, key, value)| Op::Put { table, key, value, key_slot: None, value_slot: None }),
        2 => (table(), key()).prop_map(|(table, key)| Op::Delete { table, key }),
        1 => (table(), range()).prop_map(|(table, range)| Op::DeleteRange { table, range }),
    ]
}

fn expect() -> impl Strategy<Value = Expect> {
    prop_oneof![
        (table(), key()).prop_map(|(table, key)| Expect::Absent { table, key }),
        (table(), key(), value()).prop_map(|(table, key, value)| Expect::Equals { table, key, value }),
    ]
}

fn batch() -> impl Strategy<Value = Batch> {
    (vec(expect(), 0..2), vec(op(), 0..8), 0..3_u32).prop_map(|(expect, ops, positions)| Batch {
        expect,
        ops,
        positions,
    })
}

fn inside(range: &KeyRange, key: &[u8]) -> bool {
    key >= range.start.as_slice() && range.end.as_ref().is_none_or(|end| key < end.as_slice())
}

/// The first expectation that does not hold, or what the batch makes of the model.
fn apply(model: &mut Model, batch: &Batch) -> Result<(), usize> {
    let holds = |expect: &Expect| match expect {
        Expect::Absent { table, key } => !model.contains_key(&(*table, key.clone())),
        Expect::Equals { table, key, value } => model.get(&(*table, key.clone())) == Some(value),
    };
    if let Some(index) = batch.expect.iter().position(|expect| !holds(expect)) {
        return Err(index);
    }
    for op in &batch.ops {
        match op.clone() {
            Op::Put { table, key, value, .. } => _ = model.insert((table, key), value),
            Op::Delete { table, key } => _ = model.remove(&(table, key)),
            Op::DeleteRange { table, range } => model.retain(|(of, key), _| *of != table || !inside(&range, key)),
        }
    }
    Ok(())
}

fn check(kind: EngineKind, batches: &[Batch], ranges: &[KeyRange]) -> Result<(), TestCaseError> {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("store");
    let (mut model, mut position) = (Model::new(), 0);
    let store = open(kind, &place).unwrap();
    // All at once, so that they share groups.
    let pending: Vec<_> = batches.iter().map(|batch| store.submit(batch.clone())).collect();
    for (batch, pending) in batches.iter().zip(pending) {
        match (apply(&mut model, batch), pending.wait()) {
            (Ok(()), Ok(committed)) => {
                let first = if batch.positions == 0 { position } else { position + 1 };
                prop_assert_eq!((committed.first.0, committed.count), (first, batch.positions));
                position += u64::from(batch.positions);
            }
            (Err(index), Err(CommitError::Conflict(found))) => prop_assert_eq!(index, found),
            (expected, found) => prop_assert!(false, "expected {:?}, found {:?}", expected, found),
        }
    }
    compare(&*store, &model, ranges)?;
    prop_assert_eq!(store.position().0, position);
    if kind != EngineKind::Memory {
        store.close();
        let store = open(kind, &place).unwrap();
        compare(&*store, &model, ranges)?;
        prop_assert_eq!(store.position().0, position);
    }
    Ok(())
}

fn compare(store: &dyn Store, model: &Model, ranges: &[KeyRange]) -> Result<(), TestCaseError> {
    for table in [Table::Misc, Table::EventPdu] {
        for range in ranges.iter().chain([&KeyRange::all()]) {
            let of = |(found, key): &(Table, Vec<u8>)| *found == table && inside(range, key);
            let mut expected: Vec<_> =
                model.iter().filter(|(key, _)| of(key)).map(|((_, key), value)| (key.clone(), value.clone())).collect();
            prop_assert_eq!(&store.scan(table, range, Order::Ascending, 999).unwrap(), &expected);
            expected.reverse();
            expected.truncate(3);
            prop_assert_eq!(store.scan(table, range, Order::Descending, 3).unwrap(), expected);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn memory_agrees_with_a_map(batches in vec(batch(), 0..20), ranges in vec(range(), 0..3)) {
        check(EngineKind::Memory, &batches, &ranges)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn sqlite_agrees_with_a_map(batches in vec(batch(), 0..20), ranges in vec(range(), 0..3)) {
        check(EngineKind::Sqlite, &batches, &ranges)?;
    }

    #[test]
    fn sled_agrees_with_a_map(batches in vec(batch(), 0..20), ranges in vec(range(), 0..3)) {
        check(EngineKind::Sled, &batches, &ranges)?;
    }
}

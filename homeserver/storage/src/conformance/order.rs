//! Keys: their order, their ranges, their pages.

use super::{Subject, all, commit, key};
use crate::{Key, KeyRange, MAX_PAGE, Order, Store, Table, tables::CATALOGUE};

/// Unsigned bytes, shorter first.
pub fn scans_go_in_byte_order_both_ways(subject: &Subject) {
    let store = subject.start();
    let sorted: [&[u8]; 8] = [b"", b"\0", b"\0\0", b"\0\x01", b"\x7F", b"\x80", b"\xFF", b"\xFF\xFF"];
    for table in [Table::Misc, Table::EventPdu] {
        commit(&*store, |batch| {
            for at in [3, 1, 7, 0, 5, 2, 6, 4] {
                batch.put(table, *sorted.get(at).unwrap(), "");
            }
        })
        .unwrap();
        let scan = |order| store.scan(table, &KeyRange::all(), order, 99).unwrap().into_iter().map(|row| row.0);
        assert!(scan(Order::Ascending).eq(sorted.iter().copied().map(<[u8]>::to_vec)));
        assert!(scan(Order::Descending).eq(sorted.iter().rev().copied().map(<[u8]>::to_vec)));
    }
}

/// A page has at most what was asked and at most [`MAX_PAGE`]; the pages together are everything.
pub fn pages_are_bounded_and_follow_each_other(subject: &Subject) {
    let store = subject.start();
    let count = u64::try_from(MAX_PAGE).unwrap() + 50;
    commit(&*store, |batch| (0..count).for_each(|number| _ = batch.put(Table::Misc, key(number), key(number))))
        .unwrap();
    let scan = |range: &KeyRange, order, limit| store.scan(Table::Misc, range, order, limit).unwrap();
    assert!(scan(&KeyRange::all(), Order::Ascending, 0).is_empty());
    assert_eq!(scan(&KeyRange::all(), Order::Ascending, usize::MAX).len(), MAX_PAGE);
    assert_eq!(scan(&KeyRange::all(), Order::Descending, usize::MAX).first().unwrap().0, key(count - 1));
    let pages = |order, rest: fn(KeyRange, &[u8]) -> KeyRange| {
        let (mut rows, mut range) = (Vec::new(), KeyRange::all());
        while let page @ [.., last] = scan(&range, order, 999).as_slice() {
            rows.extend_from_slice(page);
            range = rest(range, &last.0);
        }
        rows
    };
    let up = pages(Order::Ascending, KeyRange::after);
    let mut down = pages(Order::Descending, KeyRange::before);
    down.reverse();
    assert_eq!(up.len(), usize::try_from(count).unwrap());
    assert!(up == down);
}

/// Prefixes that end in `FF`, empty and reversed ranges, for scans and deletions.
pub fn ranges_with_extreme_bytes_hold_exactly_their_keys(subject: &Subject) {
    let store = subject.start();
    let keys: [&[u8]; 9] = [b"", b"\0", b"a", b"a\xFF", b"a\xFF\0", b"a\xFF\xFF\xFF", b"b", b"\xFF", b"\xFF\xFF\x01"];
    let prefix = |bytes: &[u8]| Key::new().raw(bytes).prefix();
    let ranges = [
        (prefix(b""), 9),
        (prefix(b"a"), 4),
        (prefix(b"a\xFF"), 3),
        (prefix(b"a\xFF\xFF\xFF"), 1),
        (prefix(b"\xFF"), 2),
        (prefix(b"\xFF\xFF"), 1),
        (prefix(b"c"), 0),
        (KeyRange::between("a", "a"), 0),
        (KeyRange::between("b", "a"), 0),
        (KeyRange::between("", ""), 0),
        (KeyRange::between("", "\0"), 1),
        (KeyRange::all().after(b"\xFF"), 1),
        (KeyRange::all().before(b"a"), 2),
    ];
    for table in [Table::Misc, Table::EventContent] {
        for (range, expected) in &ranges {
            commit(&*store, |batch| keys.iter().for_each(|key| _ = batch.put(table, *key, "v"))).unwrap();
            for order in [Order::Ascending, Order::Descending] {
                assert_eq!(store.scan(table, range, order, 99).unwrap().len(), *expected, "{range:?}");
            }
            commit(&*store, |batch| _ = batch.delete_range(table, range.clone())).unwrap();
            assert_eq!(all(&*store, table).len(), keys.len() - expected, "{range:?}");
        }
    }
}

/// Nothing is not the same as empty.
pub fn empty_keys_and_values_are_values(subject: &Subject) {
    let store = subject.start();
    assert_eq!(store.get(Table::Misc, b"").unwrap(), None);
    commit(&*store, |batch| _ = batch.put(Table::Misc, "", "")).unwrap();
    assert_eq!(store.get(Table::Misc, b"").unwrap(), Some(Vec::new()));
    commit(&*store, |batch| _ = batch.delete(Table::Misc, "")).unwrap();
    assert_eq!(store.get(Table::Misc, b"").unwrap(), None);
}

/// The same key holds another value in every table.
pub fn tables_do_not_share_keys(subject: &Subject) {
    let store = subject.start();
    commit(&*store, |batch| {
        for info in CATALOGUE {
            batch.put(info.table, "key", info.name);
        }
    })
    .unwrap();
    for info in CATALOGUE {
        assert_eq!(all(&*store, info.table), [(b"key".to_vec(), info.name.as_bytes().to_vec())]);
    }
}

/// Of any size, in every kind of table, alone and many in one batch.
pub fn large_values_come_back_whole(subject: &Subject) {
    let store = subject.start();
    let value = |seed: u64, length: u64| -> Vec<u8> {
        (0..length).map(|at| u8::try_from(at.wrapping_mul(seed * 2 + 7) % 253).unwrap()).collect()
    };
    let sizes = [1000, 4096, 65_535, 131_072, 262_144, 262_145, 524_288, 3_000_001];
    for table in [Table::Misc, Table::EventPdu] {
        commit(&*store, |batch| {
            (0..).zip(sizes).for_each(|(seed, size)| _ = batch.put(table, key(seed), value(seed, size)));
        })
        .unwrap();
    }
    let store = subject.restart(store);
    for table in [Table::Misc, Table::EventPdu] {
        for (seed, size) in (0..).zip(sizes) {
            assert!(store.get(table, &key(seed)).unwrap().unwrap() == value(seed, size));
        }
    }
}

/// A large value is replaced, compared, scanned and deleted like any other, and nothing of it shows under other keys.
pub fn large_values_go_without_a_rest(subject: &Subject) {
    let store = subject.start();
    let (large, other) = (vec![1; 1_000_000], vec![2; 262_144]);
    // One key is the beginning of another, and both have much behind them.
    let keys: [&[u8]; 3] = [b"a", b"a\0\0\0\0", b"b"];
    let values = |store: &dyn Store| -> Vec<Vec<u8>> { all(store, Table::Misc).into_iter().map(|row| row.1).collect() };
    commit(&*store, |batch| keys.iter().for_each(|key| _ = batch.put(Table::Misc, *key, large.clone()))).unwrap();
    assert!(values(&*store) == vec![large.clone(); 3]);
    let many = store.get_many(Table::Misc, &[b"a", b"b", b"c"]).unwrap();
    assert!(many == [Some(large.clone()), Some(large.clone()), None]);
    // What only begins alike is something else.
    let swap = |from: &[u8], to: &[u8]| {
        commit(&*store, |batch| {
            batch.expect_equals(Table::Misc, "a", from);
            batch.put(Table::Misc, "a", to);
        })
    };
    swap(large.get(..999_999).unwrap(), b"no").unwrap_err();
    // As long as one row, then long again, then short: no rest of before comes back.
    swap(&large, &other).unwrap();
    assert!(values(&*store) == [other.clone(), large.clone(), large.clone()]);
    let longer = vec![3; 600_000];
    swap(&other, &longer).unwrap();
    swap(&longer, b"short").unwrap();
    swap(b"short", &other).unwrap();
    assert!(values(&*store) == [other.clone(), large.clone(), large.clone()]);
    commit(&*store, |batch| _ = batch.delete_range(Table::Misc, KeyRange::between("a\0", "c"))).unwrap();
    commit(&*store, |batch| keys.iter().for_each(|key| _ = batch.put(Table::Misc, *key, other.clone()))).unwrap();
    let store = subject.restart(store);
    assert!(values(&*store) == vec![other; 3]);
}

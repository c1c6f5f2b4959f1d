//! Keys sort as their parts do, and come back as they went in.

use matron_storage::{Key, KeyRange, KeyReader};
use proptest::{collection::vec, prelude::*};

fn inside(range: &KeyRange, key: &Key) -> bool {
    let key = key.as_bytes();
    key >= range.start.as_slice() && range.end.as_ref().is_none_or(|end| key < end.as_slice())
}

/// Texts that are prefixes of each other, with the bytes that are written in a special way.
fn text() -> impl Strategy<Value = String> {
    vec(prop_oneof![Just('\0'), Just('\u{1}'), Just('a'), Just('\u{ff}'), any::<char>()], 0..4)
        .prop_map(|characters| characters.into_iter().collect())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn order_of_keys_is_order_of_parts(a in (text(), any::<u64>(), text()), b in (text(), any::<u64>(), text())) {
        let key = |parts: &(String, u64, String)| Key::new().text(&parts.0).number(parts.1).text(&parts.2);
        prop_assert_eq!(key(&a).as_bytes().cmp(key(&b).as_bytes()), a.cmp(&b));
    }

    #[test]
    fn parts_come_back(first in text(), number in any::<u64>(), second in text(), rest in vec(any::<u8>(), 0..5)) {
        let key = Key::new().text(&first).number(number).text(&second).raw(&rest);
        let mut reader = KeyReader::new(key.as_bytes());
        prop_assert_eq!(reader.text(), Some(first));
        prop_assert_eq!(reader.number(), Some(number));
        prop_assert_eq!(reader.text(), Some(second));
        prop_assert_eq!(reader.rest(), rest.as_slice());
    }

    #[test]
    fn prefix_holds_exactly_what_begins_with_it(room in text(), other in text(), number in any::<u64>()) {
        let range = Key::new().text(&room).prefix();
        prop_assert!(inside(&range, &Key::new().text(&room).number(number)));
        prop_assert_eq!(inside(&range, &Key::new().text(&other).text("x")), room == other);
    }

    #[test]
    fn reader_survives_any_bytes(bytes in vec(any::<u8>(), 0..40)) {
        let mut reader = KeyReader::new(&bytes);
        while reader.text().is_some() || reader.number().is_some() {}
        prop_assert!(reader.rest().len() <= bytes.len());
    }
}

//! One value, one sequence of bytes.

use matron_policy::canonical::{CanonicalError, MAX_INTEGER, parse, to_bytes};
use proptest::prelude::*;
use serde_json::{Value, json};

fn text(value: &Value) -> String {
    String::from_utf8(to_bytes(value).unwrap()).unwrap()
}

#[test]
fn examples_of_the_specification_come_out_as_printed() {
    // Appendices, "Canonical JSON", examples.
    assert_eq!(text(&json!({})), "{}");
    assert_eq!(text(&json!({"one": 1, "two": "Two"})), r#"{"one":1,"two":"Two"}"#);
    assert_eq!(text(&json!({"b": "2", "a": "1"})), r#"{"a":"1","b":"2"}"#);
    assert_eq!(text(&json!({"本": 2, "日": 1})), r#"{"日":1,"本":2}"#);
    assert_eq!(text(&json!({"a": "\u{65E5}"})), "{\"a\":\"日\"}");
    assert_eq!(text(&json!({"a": null})), r#"{"a":null}"#);
    let written: Value = serde_json::from_str(r#"{"a": -0, "b": 10000000000}"#).unwrap_or(Value::Null);
    assert!(to_bytes(&written).is_err() || text(&written).contains("10000000000"));
}

#[test]
fn control_characters_take_their_shortest_escape() {
    assert_eq!(
        text(&json!("\u{0}\u{8}\t\n\u{c}\r\u{1f}\"\\/\u{7f}")),
        "\"\\u0000\\b\\t\\n\\f\\r\\u001f\\\"\\\\/\u{7f}\""
    );
}

#[test]
fn fractions_large_numbers_and_repeated_keys_are_refused() {
    for bad in [r#"{"a":1.5}"#, r#"{"a":1e3}"#, "9007199254740992", "-9007199254740992", "18446744073709551616"] {
        assert!(matches!(parse(bad.as_bytes(), 100), Err(CanonicalError::NotJson(_))), "{bad}");
    }
    assert!(parse(br#"{"a":{"b":1,"b":2}}"#, 100).unwrap_err().to_string().contains("twice"));
    assert!(parse(b"[1] 2", 100).is_err());
    assert!(parse(b"", 100).is_err());
    assert!(matches!(parse(b"[1,2]", 4), Err(CanonicalError::TooLarge { size_bytes: 5, limit_bytes: 4 })));
    assert!(to_bytes(&json!(MAX_INTEGER + 1)).is_err());
    assert!(to_bytes(&json!(0.5)).is_err());
}

#[test]
fn deep_nesting_is_refused_and_never_overflows() {
    let deep = "[".repeat(100_000);
    assert!(parse(deep.as_bytes(), 1_000_000).is_err());
    let mut value = Value::Null;
    for _ in 0..200 {
        value = json!([value]);
    }
    assert!(matches!(to_bytes(&value), Err(CanonicalError::TooDeep)));
}

pub(crate) fn value() -> impl Strategy<Value = Value> {
    let integers = -9_007_199_254_740_991_i64..=9_007_199_254_740_991;
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        integers.prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            proptest::collection::btree_map(any::<String>(), inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn writing_then_reading_then_writing_changes_nothing(value in value()) {
        let bytes = to_bytes(&value).unwrap();
        let again = parse(&bytes, usize::MAX).unwrap();
        prop_assert_eq!(&again, &value);
        prop_assert_eq!(to_bytes(&again).unwrap(), bytes);
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
        let _ = parse(&bytes, 1000);
    }
}

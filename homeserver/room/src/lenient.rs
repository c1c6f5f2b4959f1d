//! Numbers that canonical JSON cannot hold, for room versions 1 to 5, which must not enforce canonical JSON.
//!
//! Such a number travels through the canonical tree as an object with one reserved key and is put back when the tree is
//! printed. Printed is what most servers of those rooms print: the shortest decimal that reads back as the same number.
//! Spec: <https://spec.matrix.org/v1.19/rooms/v1/#canonical-json>.

use std::collections::BTreeMap;

use ruma::{CanonicalJsonObject, CanonicalJsonValue, Int};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::canonical::CanonicalError;

/// No event in the wild has this key; one that does is refused, lest its text be taken for a number.
const RESERVED: &str = "\u{0}number";
/// How the placeholder begins in JSON. A quotation mark inside a string is escaped, so no string contains this.
const OPENING: &str = r#"{"\u0000number":""#;
const CLOSING: &str = r#""}"#;

/// As deep as serde_json reads.
const MAX_DEPTH: usize = 127;

/// The tree that this JSON spells, numbers of any kind included.
pub(crate) fn tree(json: &str) -> Result<CanonicalJsonValue, CanonicalError> {
    let raw: &RawValue = serde_json::from_str(json).map_err(CanonicalError::NotJson)?;
    subtree(raw, MAX_DEPTH)
}

/// Every level is read from the text, not through `serde_json::Value`, which would round numbers.
fn subtree(raw: &RawValue, depth: usize) -> Result<CanonicalJsonValue, CanonicalError> {
    let text = raw.get();
    let depth = match text.as_bytes().first() {
        Some(b'{' | b'[') => depth.checked_sub(1).ok_or_else(too_deep)?,
        _ => depth,
    };
    Ok(match text.as_bytes().first() {
        Some(b'{') => {
            let entries: BTreeMap<String, &RawValue> = read(text)?;
            let mut object = CanonicalJsonObject::new();
            for (key, value) in entries {
                if key == RESERVED {
                    return Err(CanonicalError::ReservedKey);
                }
                object.insert(key, subtree(value, depth)?);
            }
            CanonicalJsonValue::Object(object)
        }
        Some(b'[') => {
            let list: Vec<&RawValue> = read(text)?;
            let list: Result<_, _> = list.into_iter().map(|value| subtree(value, depth)).collect();
            CanonicalJsonValue::Array(list?)
        }
        Some(b'"') => CanonicalJsonValue::String(read(text)?),
        Some(b't' | b'f') => CanonicalJsonValue::Bool(read(text)?),
        Some(b'n') => CanonicalJsonValue::Null,
        _ => number(text)?,
    })
}

fn read<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, CanonicalError> {
    serde_json::from_str(text).map_err(CanonicalError::NotJson)
}

fn too_deep() -> CanonicalError {
    CanonicalError::NotJson(serde::de::Error::custom("nested too deeply"))
}

/// A number in the tree: itself where canonical JSON can hold it, else the placeholder.
fn number(text: &str) -> Result<CanonicalJsonValue, CanonicalError> {
    if let Some(integer) = text.parse().ok().and_then(|integer: i64| Int::try_from(integer).ok()) {
        return Ok(CanonicalJsonValue::Integer(integer));
    }
    if text.parse().is_ok_and(|float: f64| float.is_infinite()) && text.contains(['e', 'E', '.']) {
        return Err(CanonicalError::NotJson(serde::de::Error::custom("number out of range")));
    }
    let spelled = CanonicalJsonValue::String(spell(text));
    Ok(CanonicalJsonValue::Object(CanonicalJsonObject::from([(RESERVED.to_owned(), spelled)])))
}

/// Whether what looks like an object stands for a number.
pub(crate) fn is_number(object: &CanonicalJsonObject) -> bool {
    object.contains_key(RESERVED)
}

/// The printed tree with its numbers put back.
pub(crate) fn restore(text: String) -> String {
    if !text.contains(OPENING) {
        return text;
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some((before, after)) = rest.split_once(OPENING) {
        out.push_str(before);
        // INVARIANT: a number's spelling has no quotation mark, so the first closing is its own.
        let (number, after) = after.split_once(CLOSING).unwrap_or((after, ""));
        out.push_str(number);
        rest = after;
    }
    out.push_str(rest);
    out
}

/// The number as Python spells it, which is how events with such numbers were signed.
fn spell(text: &str) -> String {
    let is_integer = !text.contains(['.', 'e', 'E']);
    let float: f64 = match text.parse() {
        Ok(float) if !is_integer => float,
        _ => return text.to_owned(),
    };
    let scientific = format!("{float:e}");
    let Some((mantissa, exponent)) = scientific.split_once('e') else {
        return scientific;
    };
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if !(-4..16).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{mantissa}e{sign}{:02}", exponent.unsigned_abs());
    }
    let fixed = format!("{float}");
    if fixed.contains('.') { fixed } else { format!("{fixed}.0") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_spelled_as_python_spells_them() {
        let cases = [
            ("1.5", "1.5"),
            ("1.0", "1.0"),
            ("100000.0", "100000.0"),
            ("1e5", "100000.0"),
            ("1e16", "1e+16"),
            ("1.25e-7", "1.25e-07"),
            ("0.0001", "0.0001"),
            ("-2.5e300", "-2.5e+300"),
            ("9007199254740993", "9007199254740993"),
            ("123456789012345678901234567890", "123456789012345678901234567890"),
            ("9.002222222222221e+76", "9.002222222222221e+76"),
            ("0.1e-6", "1e-07"),
        ];
        for (input, expected) in cases {
            assert_eq!(spell(input), expected);
        }
    }

    #[test]
    fn numbers_survive_the_tree_and_nothing_else_is_taken_for_one() {
        let text = r#"{"a":[1.5,{"b":-1e+20}],"s":"{\"\\u0000number\":\"1.5\"}","z":{"c":9007199254740993}}"#;
        let printed = restore(serde_json::to_string(&tree(text).unwrap()).unwrap());
        assert_eq!(printed, text);
        let forged = serde_json::json!({ RESERVED: "1.5" }).to_string();
        assert!(matches!(tree(&forged), Err(CanonicalError::ReservedKey)));
    }

    #[test]
    fn numbers_beyond_floating_point_are_errors_or_text_but_never_infinite() {
        for text in ["1e999", "-1e999"] {
            assert!(tree(text).is_err(), "{text}");
        }
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(tree(&nested(MAX_DEPTH)).is_ok());
        assert!(tree(&nested(MAX_DEPTH + 1)).is_err());
        assert!(tree(&nested(100_000)).is_err());
    }
}

//! Numbers that canonical JSON cannot hold, for room versions 1 to 5, which must not enforce canonical JSON.
//!
//! Such a number travels through the canonical tree as an object with one reserved key and is put back when the tree is
//! printed. Printed is what most servers of those rooms print: the shortest decimal that reads back as the same number.
//! Spec: <https://spec.matrix.org/v1.19/rooms/v1/#canonical-json>.

use ruma::{CanonicalJsonObject, CanonicalJsonValue, Int};
use serde_json::{Number, Value};

use crate::canonical::CanonicalError;

/// No event in the wild has this key; one that does is refused, lest its text be taken for a number.
const RESERVED: &str = "\u{0}number";
/// How the placeholder begins in JSON. A quotation mark inside a string is escaped, so no string contains this.
const OPENING: &str = r#"{"\u0000number":""#;
const CLOSING: &str = r#""}"#;

/// The tree of this value, numbers of any kind included.
pub(crate) fn tree(value: Value) -> Result<CanonicalJsonValue, CanonicalError> {
    Ok(match value {
        Value::Null => CanonicalJsonValue::Null,
        Value::Bool(flag) => CanonicalJsonValue::Bool(flag),
        Value::String(text) => CanonicalJsonValue::String(text),
        Value::Number(number) => match number
            .as_i64()
            .and_then(|integer| Int::try_from(integer).ok())
        {
            Some(integer) => CanonicalJsonValue::Integer(integer),
            None => CanonicalJsonValue::Object(CanonicalJsonObject::from([(
                RESERVED.to_owned(),
                CanonicalJsonValue::String(spell(&number)),
            )])),
        },
        Value::Array(list) => {
            CanonicalJsonValue::Array(list.into_iter().map(tree).collect::<Result<_, _>>()?)
        }
        Value::Object(object) => {
            let mut out = CanonicalJsonObject::new();
            for (key, value) in object {
                if key == RESERVED {
                    return Err(CanonicalError::ReservedKey);
                }
                out.insert(key, tree(value)?);
            }
            CanonicalJsonValue::Object(out)
        }
    })
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
fn spell(number: &Number) -> String {
    let Some(float) = number.as_f64().filter(|_| number.is_f64()) else {
        return number.to_string();
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
    if fixed.contains('.') {
        fixed
    } else {
        format!("{fixed}.0")
    }
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
            ("18446744073709551615", "18446744073709551615"),
        ];
        for (input, expected) in cases {
            let number: Number = serde_json::from_str(input).unwrap();
            assert_eq!(spell(&number), expected);
        }
    }

    #[test]
    fn numbers_survive_the_tree_and_nothing_else_is_taken_for_one() {
        let text = r#"{"a":[1.5,{"b":-1e+20}],"s":"{\"\\u0000number\":\"1.5\"}","z":{"c":9007199254740993}}"#;
        let printed = restore(
            serde_json::to_string(&tree(serde_json::from_str(text).unwrap()).unwrap()).unwrap(),
        );
        assert_eq!(printed, text);
        let forged = serde_json::json!({ RESERVED: "1.5" });
        assert!(matches!(tree(forged), Err(CanonicalError::ReservedKey)));
    }
}

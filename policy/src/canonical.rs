//! Canonical JSON: one value, one sequence of bytes.
//!
//! The form is that of the Matrix specification (Appendices, "Canonical JSON"): object keys sorted by
//! code point, no spaces, no floats, integers within ±(2^53 − 1), the shortest escapes, UTF-8. Everything
//! that this crate hashes or signs goes through [`to_bytes`].
//!
//! Reading is stricter than JSON: a key that appears twice, a fraction or a number too large is refused,
//! so two readers of one signed document cannot see two different things.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use thiserror::Error;

/// The largest integer that every JSON reader keeps exactly: 2^53 − 1.
pub const MAX_INTEGER: u64 = (1 << 53) - 1;
/// How deep arrays and objects may nest.
pub const MAX_DEPTH: usize = 100;

/// Why bytes are not, or a value has no, canonical JSON.
#[derive(Debug, Error)]
pub enum CanonicalError {
    /// The document is longer than its reader allows.
    #[error("the document has {size_bytes} bytes; at most {limit_bytes} are read")]
    TooLarge {
        /// Length of the document.
        size_bytes: usize,
        /// What the reader allows.
        limit_bytes: usize,
    },
    /// The bytes are no JSON, or hold a key twice, a fraction or a number that is too large.
    #[error("the document is not strict JSON: {0}")]
    NotJson(#[source] serde_json::Error),
    /// The value holds a fraction, or an integer outside ±(2^53 − 1).
    #[error("a number is not an integer within ±(2^53 - 1)")]
    NotAnInteger,
    /// The value nests deeper than [`MAX_DEPTH`].
    #[error("the value nests deeper than {MAX_DEPTH} levels")]
    TooDeep,
}

/// The value's canonical bytes.
///
/// # Errors
/// [`CanonicalError::NotAnInteger`] and [`CanonicalError::TooDeep`].
pub fn to_bytes(value: &Value) -> Result<Vec<u8>, CanonicalError> {
    let mut out = String::new();
    write_with(value, 0, &mut out, Integers::Safe)?;
    Ok(out.into_bytes())
}

/// The canonical bytes of anything that serialises to JSON.
///
/// # Errors
/// As [`to_bytes`]; [`CanonicalError::NotJson`] if it does not serialise.
pub fn of<T: serde::Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, CanonicalError> {
    to_bytes(&serde_json::to_value(value).map_err(CanonicalError::NotJson)?)
}

/// The bytes that name a value of this crate's own making: canonical, but for integers, which keep all 64 bits.
pub(crate) fn naming<T: serde::Serialize + ?Sized>(value: &T) -> Vec<u8> {
    let value = serde_json::to_value(value).unwrap_or(Value::Null);
    let mut out = String::new();
    match write_with(&value, 0, &mut out, Integers::All) {
        Ok(()) => out.into_bytes(),
        // Not reached: the crate's types hold no fractions and do not nest.
        Err(_) => value.to_string().into_bytes(),
    }
}

/// The JSON value that the bytes hold, read strictly.
///
/// # Errors
/// [`CanonicalError::TooLarge`] beyond `limit_bytes`, [`CanonicalError::NotJson`] for anything that has no
/// single canonical form.
pub fn parse(bytes: &[u8], limit_bytes: usize) -> Result<Value, CanonicalError> {
    if bytes.len() > limit_bytes {
        return Err(CanonicalError::TooLarge { size_bytes: bytes.len(), limit_bytes });
    }
    let strict: Strict = serde_json::from_slice(bytes).map_err(CanonicalError::NotJson)?;
    Ok(strict.0)
}

/// Which integers may be written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Integers {
    /// Those that every JSON reader keeps exactly.
    Safe,
    /// All that Rust keeps exactly.
    All,
}

fn write_with(value: &Value, depth: usize, out: &mut String, integers: Integers) -> Result<(), CanonicalError> {
    if depth > MAX_DEPTH {
        return Err(CanonicalError::TooDeep);
    }
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(true) => out.push_str("true"),
        Value::Bool(false) => out.push_str("false"),
        Value::Number(number) => write_number(number, out, integers)?,
        Value::String(text) => write_string(text, out),
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_with(item, depth + 1, out, integers)?;
            }
            out.push(']');
        }
        Value::Object(map) => write_object(map, depth, out, integers)?,
    }
    Ok(())
}

fn write_object(
    map: &Map<String, Value>,
    depth: usize,
    out: &mut String,
    integers: Integers,
) -> Result<(), CanonicalError> {
    // INVARIANT: sorted here, because the map's own order depends on a feature that any crate may switch on.
    // Order of UTF-8 bytes is order of code points.
    let mut entries: Vec<(&String, &Value)> = map.iter().collect();
    entries.sort_unstable_by_key(|(key, _)| *key);
    out.push('{');
    for (index, (key, item)) in entries.into_iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        write_string(key, out);
        out.push(':');
        write_with(item, depth + 1, out, integers)?;
    }
    out.push('}');
    Ok(())
}

fn write_number(number: &Number, out: &mut String, integers: Integers) -> Result<(), CanonicalError> {
    let limit = if integers == Integers::All { u64::MAX } else { MAX_INTEGER };
    if let Some(positive) = number.as_u64().filter(|n| *n <= limit) {
        out.push_str(&positive.to_string());
        return Ok(());
    }
    match number.as_i64() {
        Some(negative) if negative < 0 && negative.unsigned_abs() <= limit => {
            out.push_str(&negative.to_string());
            Ok(())
        }
        _ => Err(CanonicalError::NotAnInteger),
    }
}

fn write_string(text: &str, out: &mut String) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\t' => out.push_str("\\t"),
            '\n' => out.push_str("\\n"),
            '\u{c}' => out.push_str("\\f"),
            '\r' => out.push_str("\\r"),
            control if u32::from(control) < 0x20 => {
                out.push_str(&format!("\\u{:04x}", u32::from(control)));
            }
            other => out.push(other),
        }
    }
    out.push('"');
}

struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Strict)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value without fractions and without repeated keys")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Value, E> {
        if value > MAX_INTEGER {
            return Err(E::custom("a number is larger than 2^53 - 1"));
        }
        Ok(Value::from(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Value, E> {
        if value.unsigned_abs() > MAX_INTEGER {
            return Err(E::custom("a number is outside ±(2^53 - 1)"));
        }
        Ok(Value::from(value))
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<Value, E> {
        Err(E::custom("a number is not an integer"))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E: de::Error>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Strict(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some((key, Strict(item))) = entries.next_entry::<String, Strict>()? {
            if map.insert(key, item).is_some() {
                return Err(de::Error::custom("a key appears twice in one object"));
            }
        }
        Ok(Value::Object(map))
    }
}

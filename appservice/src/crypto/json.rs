//! Canonical JSON and JSON signatures.
//!
//! SPEC: Appendices, "Canonical JSON" and "Signing JSON".

use serde_json::{Map, Value};
use thiserror::Error;
use vodozemac::{Ed25519PublicKey, Ed25519Signature};

/// Why JSON could not be signed, or a signature does not hold.
#[derive(Debug, Error)]
pub enum SignedJsonError {
    /// Canonical JSON has no fractions and no numbers beyond 2^53.
    #[error("a number has no canonical form")]
    Number,
    /// Nested deeper than any key object.
    #[error("nested too deep")]
    Depth,
    /// Not an object, or without this signature.
    #[error("there is no such signature")]
    Missing,
    /// The signature is malformed or wrong.
    #[error("the signature is wrong")]
    Wrong(#[from] vodozemac::SignatureError),
}

const MAX_DEPTH: usize = 32;
const MAX_INTEGER: i64 = 1 << 53;

/// The canonical form: sorted keys, no spaces, integers only.
///
/// # Errors
/// [`SignedJsonError::Number`] or [`SignedJsonError::Depth`].
pub fn canonical(value: &Value) -> Result<String, SignedJsonError> {
    let mut out = String::new();
    write(value, &mut out, 0)?;
    Ok(out)
}

fn write(value: &Value, out: &mut String, depth: usize) -> Result<(), SignedJsonError> {
    if depth > MAX_DEPTH {
        return Err(SignedJsonError::Depth);
    }
    match value {
        Value::Null | Value::Bool(_) | Value::String(_) => out.push_str(&value.to_string()),
        Value::Number(number) => {
            let integer = number.as_i64().filter(|integer| (-MAX_INTEGER..=MAX_INTEGER).contains(integer));
            out.push_str(&integer.ok_or(SignedJsonError::Number)?.to_string());
        }
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write(item, out, depth + 1)?;
            }
            out.push(']');
        }
        Value::Object(fields) => write_object(fields, out, depth, &[])?,
    }
    Ok(())
}

fn write_object(
    fields: &Map<String, Value>,
    out: &mut String,
    depth: usize,
    without: &[&str],
) -> Result<(), SignedJsonError> {
    // The map's own order depends on a feature of serde_json that any crate may switch on.
    let mut sorted: Vec<_> = fields.iter().filter(|(key, _)| !without.contains(&key.as_str())).collect();
    sorted.sort_by_key(|(key, _)| key.as_bytes());
    out.push('{');
    for (index, (key, value)) in sorted.into_iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        out.push_str(&Value::from(key.as_str()).to_string());
        out.push(':');
        write(value, out, depth + 1)?;
    }
    out.push('}');
    Ok(())
}

/// The bytes that a signature covers: everything but `signatures` and `unsigned`.
///
/// # Errors
/// [`SignedJsonError`].
pub fn signed_bytes(value: &Value) -> Result<String, SignedJsonError> {
    let fields = value.as_object().ok_or(SignedJsonError::Missing)?;
    let mut out = String::new();
    write_object(fields, &mut out, 0, &["signatures", "unsigned"])?;
    Ok(out)
}

/// The object carries the signature that `sign` makes, under this user and key id, beside those it had.
///
/// # Errors
/// [`SignedJsonError`].
pub fn add_signature(
    value: &mut Value,
    user_id: &str,
    key_id: &str,
    sign: impl FnOnce(&str) -> Ed25519Signature,
) -> Result<(), SignedJsonError> {
    let signature = sign(&signed_bytes(value)?).to_base64();
    let fields = value.as_object_mut().ok_or(SignedJsonError::Missing)?;
    fields
        .entry("signatures")
        .or_insert_with(|| Value::Object(Map::new()))
        .as_object_mut()
        .ok_or(SignedJsonError::Missing)?
        .entry(user_id)
        .or_insert_with(|| Value::Object(Map::new()))
        .as_object_mut()
        .ok_or(SignedJsonError::Missing)?
        .insert(key_id.to_owned(), Value::from(signature));
    Ok(())
}

/// The object is signed by this user with this key.
///
/// # Errors
/// [`SignedJsonError`].
pub fn verify(value: &Value, user_id: &str, key_id: &str, key: &Ed25519PublicKey) -> Result<(), SignedJsonError> {
    let signature = value
        .get("signatures")
        .and_then(|signatures| signatures.get(user_id))
        .and_then(|of_user| of_user.get(key_id))
        .and_then(Value::as_str)
        .ok_or(SignedJsonError::Missing)?;
    let signature = Ed25519Signature::from_base64(signature)?;
    Ok(key.verify(signed_bytes(value)?.as_bytes(), &signature)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use vodozemac::Ed25519SecretKey;

    #[test]
    fn canonical_form_is_that_of_the_specs_examples() {
        let pairs = [
            (json!({}), "{}"),
            (json!({"one": 1, "two": "Two"}), r#"{"one":1,"two":"Two"}"#),
            (json!({"b": "2", "a": "1"}), r#"{"a":"1","b":"2"}"#),
            (json!({"a": "日本語"}), r#"{"a":"日本語"}"#),
            (json!({"本": 2, "日": 1}), r#"{"日":1,"本":2}"#),
            (json!({"a": null, "c": [true, {"z": 0, "y": "\"\\\n"}]}), r#"{"a":null,"c":[true,{"y":"\"\\\n","z":0}]}"#),
        ];
        for (value, expected) in pairs {
            assert_eq!(canonical(&value).unwrap(), expected);
        }
        assert!(canonical(&json!({"a": 1.5})).is_err());
        assert!(canonical(&json!({"a": u64::MAX})).is_err());
    }

    #[test]
    fn a_signature_holds_until_the_object_changes() {
        let key = Ed25519SecretKey::new();
        let mut value = json!({"a": 1, "unsigned": {"age": 3}});
        add_signature(&mut value, "@a:b", "ed25519:X", |bytes| key.sign(bytes.as_bytes())).unwrap();
        value["unsigned"] = json!({"age": 4});
        verify(&value, "@a:b", "ed25519:X", &key.public_key()).unwrap();
        assert!(verify(&value, "@a:b", "ed25519:Y", &key.public_key()).is_err());
        value["a"] = json!(2);
        assert!(verify(&value, "@a:b", "ed25519:X", &key.public_key()).is_err());
    }
}

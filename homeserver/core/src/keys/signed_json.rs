//! Signatures on keys, by keys.
//!
//! Spec: <https://spec.matrix.org/v1.19/appendices/#signing-json>.

use std::collections::BTreeMap;

use ruma::UserId;
use serde_json::{Map, Value};

/// Whether the object carries a right signature of `signer` under `key_id` by this public key.
pub(super) fn is_signed_by(object: &Value, signer: &UserId, key_id: &str, public_base64: &str) -> bool {
    let Ok(object) = matron_room::canonical_object(object) else { return false };
    let keys = BTreeMap::from([(key_id.to_owned(), public_base64.to_owned())]);
    matron_room::verify_json_signature(&object, signer.as_str(), &keys).is_ok()
}

/// The one public key of a cross-signing key: its id (`ed25519:…`) and its base64.
pub(super) fn only_key(object: &Value) -> Option<(&str, &str)> {
    let keys = object.get("keys")?.as_object()?;
    let mut keys = keys.iter();
    let (id, key) = keys.next()?;
    if keys.next().is_some() || !id.starts_with("ed25519:") {
        return None;
    }
    Some((id, key.as_str()?))
}

/// Whether two objects say the same but for what others may add: `signatures` and `unsigned`.
pub(super) fn same_but_signatures(one: &Value, other: &Value) -> bool {
    fn bare(value: &Value) -> Option<Vec<(&String, &Value)>> {
        let mut fields: Vec<_> =
            value.as_object()?.iter().filter(|(name, _)| !matches!(name.as_str(), "signatures" | "unsigned")).collect();
        fields.sort_by_key(|(name, _)| *name);
        Some(fields)
    }
    matches!((bare(one), bare(other)), (Some(one), Some(other)) if one == other)
}

/// Adds one signature to an object.
pub(super) fn add_signature(object: &mut Value, signer: &str, key_id: &str, signature: String) {
    let Some(fields) = object.as_object_mut() else { return };
    let signatures = fields.entry("signatures").or_insert_with(|| Value::Object(Map::new()));
    let Some(signatures) = signatures.as_object_mut() else { return };
    let of_signer = signatures.entry(signer).or_insert_with(|| Value::Object(Map::new()));
    if let Some(of_signer) = of_signer.as_object_mut() {
        of_signer.insert(key_id.to_owned(), Value::String(signature));
    }
}

/// Whether `signatures`, where given, is an object of objects of strings.
pub(super) fn has_sound_signatures(object: &Value) -> bool {
    match object.get("signatures") {
        None => true,
        Some(Value::Object(signers)) => {
            signers.values().all(|of| of.as_object().is_some_and(|of| of.values().all(Value::is_string)))
        }
        Some(_) => false,
    }
}

//! Signing and verifying JSON and events.
//!
//! Spec: <https://spec.matrix.org/v1.19/appendices/#signing-json>.

use std::collections::BTreeMap;

use ruma::{CanonicalJsonObject, CanonicalJsonValue, OwnedServerName, ServerName, canonical_json::RedactingSerializer};
use thiserror::Error;

use crate::{
    canonical::{CanonicalError, print_event},
    key::{SigningKey, VerifyKey},
    version::RoomVersion,
};

/// Why signatures do not stand. The event or message is dropped.
#[derive(Debug, Error)]
pub enum SignatureError {
    /// The server must sign and did not.
    #[error("{server} has not signed it")]
    Missing {
        /// The server whose signature is needed.
        server: String,
    },
    /// The server signed, but with no key that is known and valid for the time.
    #[error("no known key of {server} is among its signatures")]
    UnknownKey {
        /// The server whose key is needed.
        server: String,
    },
    /// A signature by a known key is wrong.
    #[error("a signature of {server} by {key_id} is wrong")]
    Invalid {
        /// The server whose signature it claims to be.
        server: String,
        /// The key's id.
        key_id: String,
    },
    /// What should be signed has no canonical form, or `signatures` is not an object of objects.
    #[error(transparent)]
    Canonical(#[from] CanonicalError),
    /// The event could not be built after its signatures stood.
    #[error("the event is malformed")]
    Malformed,
}

/// Where public keys come from: a cache, filled before the check.
pub trait KeySource {
    /// The server's key of this id, if it is known and was valid at that time.
    ///
    /// `valid_at_ms` is milliseconds since 1970; `None` when the room version ignores validity (1 to 4).
    fn find_key(&self, server: &ServerName, key_id: &str, valid_at_ms: Option<u64>) -> Option<VerifyKey>;
}

impl KeySource for BTreeMap<OwnedServerName, BTreeMap<String, VerifyKey>> {
    fn find_key(&self, server: &ServerName, key_id: &str, _valid_at_ms: Option<u64>) -> Option<VerifyKey> {
        self.get(server)?.get(key_id).copied()
    }
}

impl KeySource for ruma::signatures::PublicKeyMap {
    fn find_key(&self, server: &ServerName, key_id: &str, _valid_at_ms: Option<u64>) -> Option<VerifyKey> {
        let bytes = self.get(server.as_str())?.get(key_id)?.as_bytes().try_into().ok()?;
        Some(VerifyKey::from_bytes(bytes))
    }
}

impl<K: KeySource + ?Sized> KeySource for &K {
    fn find_key(&self, server: &ServerName, key_id: &str, valid_at_ms: Option<u64>) -> Option<VerifyKey> {
        (**self).find_key(server, key_id, valid_at_ms)
    }
}

/// The object carries our signature under `signatures.<entity>.<key id>`, beside any others.
///
/// # Errors
/// [`CanonicalError::NotAnObject`] when `signatures` is not an object of objects.
pub fn sign_json(object: &mut CanonicalJsonObject, key: &SigningKey, entity: &str) -> Result<(), CanonicalError> {
    let text = json_signing_text(object)?;
    insert_signature(object, entity, key.key_id(), &key.sign_bytes(text.as_bytes()))
}

/// The entity signed the object with one of these keys (key id to base64), and no signature by any of them is wrong.
///
/// # Errors
/// [`SignatureError`], by what fails.
pub fn verify_json_signature(
    object: &CanonicalJsonObject,
    entity: &str,
    keys: &BTreeMap<String, String>,
) -> Result<(), SignatureError> {
    let text = json_signing_text(object)?;
    verify_entity(object, entity, text.as_bytes(), |key_id| {
        keys.get(key_id).and_then(|key| VerifyKey::from_base64(key).ok())
    })
}

impl SigningKey {
    /// As [`sign_json`].
    ///
    /// # Errors
    /// [`CanonicalError::NotAnObject`] when `signatures` is not an object of objects.
    pub fn sign_json(&self, object: &mut CanonicalJsonObject, entity: &str) -> Result<(), CanonicalError> {
        sign_json(object, self, entity)
    }
}

/// Our signature stands in the event; gives the text that was signed.
pub(crate) fn sign_event(
    event: &mut CanonicalJsonObject,
    key: &SigningKey,
    server: &ServerName,
    version: &RoomVersion,
) -> Result<String, CanonicalError> {
    let text = event_signing_text(event, version)?;
    insert_signature(event, server.as_str(), key.key_id(), &key.sign_bytes(text.as_bytes()))?;
    Ok(text)
}

/// What is signed of a JSON object: all but `signatures` and `unsigned`.
fn json_signing_text(object: &CanonicalJsonObject) -> Result<String, CanonicalError> {
    RedactingSerializer::new()
        .custom_redacted_root_fields(&["signatures", "unsigned"])
        .serialize(object)
        .map_err(CanonicalError::NotJson)
}

/// What is signed of an event: the redacted form without `signatures` and `unsigned`.
pub(crate) fn event_signing_text(event: &CanonicalJsonObject, version: &RoomVersion) -> Result<String, CanonicalError> {
    print_event(event, version, &["signatures", "unsigned"], true)
}

/// A signature stands under `signatures`.
pub(crate) fn insert_signature(
    object: &mut CanonicalJsonObject,
    entity: &str,
    key_id: &str,
    signature: &str,
) -> Result<(), CanonicalError> {
    let empty = || CanonicalJsonValue::Object(CanonicalJsonObject::new());
    let CanonicalJsonValue::Object(signatures) = object.entry("signatures".to_owned()).or_insert_with(empty) else {
        return Err(CanonicalError::NotAnObject);
    };
    let CanonicalJsonValue::Object(of_entity) = signatures.entry(entity.to_owned()).or_insert_with(empty) else {
        return Err(CanonicalError::NotAnObject);
    };
    of_entity.insert(key_id.to_owned(), CanonicalJsonValue::String(signature.to_owned()));
    Ok(())
}

/// The ed25519 key ids under which an entity signed.
pub(crate) fn signing_key_ids<'a>(
    object: &'a CanonicalJsonObject,
    entity: &str,
) -> impl Iterator<Item = (&'a str, Option<&'a str>)> {
    let of_entity = object
        .get("signatures")
        .and_then(CanonicalJsonValue::as_object)
        .and_then(|signatures| signatures.get(entity))
        .and_then(CanonicalJsonValue::as_object);
    of_entity
        .into_iter()
        .flatten()
        .filter(|(key_id, _)| key_id.starts_with("ed25519:"))
        .map(|(key_id, signature)| (key_id.as_str(), signature.as_str()))
}

/// Succeeds when at least one signature is by a known key and every signature by a known key is right.
pub(crate) fn verify_entity(
    object: &CanonicalJsonObject,
    entity: &str,
    message: &[u8],
    find_key: impl Fn(&str) -> Option<VerifyKey>,
) -> Result<(), SignatureError> {
    let mut signed = false;
    let mut verified = false;
    for (key_id, signature) in signing_key_ids(object, entity) {
        signed = true;
        let Some(key) = find_key(key_id) else {
            continue;
        };
        if !signature.is_some_and(|signature| key.verifies(message, signature)) {
            return Err(SignatureError::Invalid { server: entity.to_owned(), key_id: key_id.to_owned() });
        }
        verified = true;
    }
    match (signed, verified) {
        (_, true) => Ok(()),
        (true, false) => Err(SignatureError::UnknownKey { server: entity.to_owned() }),
        (false, false) => Err(SignatureError::Missing { server: entity.to_owned() }),
    }
}

//! Canonical JSON and redaction on its object form.
//!
//! Spec: <https://spec.matrix.org/v1.19/appendices/#canonical-json>.

use ruma::{
    CanonicalJsonObject, CanonicalJsonValue,
    canonical_json::{CanonicalJsonError, RedactingSerializer, redact_in_place, to_canonical_value},
};
use serde::Serialize;
use thiserror::Error;

use crate::{lenient, version::RoomVersion};

/// Why a value has no canonical JSON form.
#[derive(Debug, Error)]
pub enum CanonicalError {
    /// The text is not JSON (`M_NOT_JSON`).
    #[error("not JSON")]
    NotJson(#[source] serde_json::Error),
    /// A number is a fraction or outside ±(2^53 - 1), or a key is not a string (`M_BAD_JSON`).
    #[error("not canonical JSON")]
    NotCanonical(#[source] CanonicalJsonError),
    /// The outermost value is not an object (`M_BAD_JSON`).
    #[error("not a JSON object")]
    NotAnObject,
    /// An object has the key that stands for numbers inside this crate, in a version before 6 (`M_BAD_JSON`).
    #[error("an object has a reserved key")]
    ReservedKey,
    /// An event lacks a string `type`, or `content` is not an object (`M_BAD_JSON`).
    #[error("not an event")]
    NotAnEvent,
}

/// The value in canonical form: keys sorted, no insignificant space, integers only.
///
/// # Errors
/// [`CanonicalError::NotCanonical`] for fractions and large integers.
pub fn canonical_json<T: Serialize + ?Sized>(value: &T) -> Result<String, CanonicalError> {
    let value = canonical_value(value)?;
    serde_json::to_string(&value).map_err(CanonicalError::NotJson)
}

/// The value as a canonical JSON tree.
///
/// # Errors
/// [`CanonicalError::NotCanonical`] for fractions and large integers.
pub fn canonical_value<T: Serialize + ?Sized>(value: &T) -> Result<CanonicalJsonValue, CanonicalError> {
    to_canonical_value(value).map_err(CanonicalError::NotCanonical)
}

/// The value as a canonical JSON object.
///
/// # Errors
/// As [`canonical_value`], and [`CanonicalError::NotAnObject`].
pub fn canonical_object<T: Serialize + ?Sized>(value: &T) -> Result<CanonicalJsonObject, CanonicalError> {
    match canonical_value(value)? {
        CanonicalJsonValue::Object(object) => Ok(object),
        _ => Err(CanonicalError::NotAnObject),
    }
}

/// The canonical object that a JSON text spells.
///
/// # Errors
/// [`CanonicalError::NotJson`], [`CanonicalError::NotCanonical`], [`CanonicalError::NotAnObject`].
pub fn parse_canonical(json: &str) -> Result<CanonicalJsonObject, CanonicalError> {
    let value: serde_json::Value = serde_json::from_str(json).map_err(CanonicalError::NotJson)?;
    match CanonicalJsonValue::try_from(value).map_err(CanonicalError::NotCanonical)? {
        CanonicalJsonValue::Object(object) => Ok(object),
        _ => Err(CanonicalError::NotAnObject),
    }
}

/// The event that a JSON text spells; before version 6 with numbers that canonical JSON cannot hold.
pub(crate) fn parse_event(json: &str, version: &RoomVersion) -> Result<CanonicalJsonObject, CanonicalError> {
    if !version.is_lenient() {
        return parse_canonical(json);
    }
    match lenient::tree(json)? {
        CanonicalJsonValue::Object(object) if !lenient::is_number(&object) => Ok(object),
        _ => Err(CanonicalError::NotAnObject),
    }
}

/// As [`parse_event`], from a tree.
pub(crate) fn event_object(
    value: &serde_json::Value,
    version: &RoomVersion,
) -> Result<CanonicalJsonObject, CanonicalError> {
    if version.is_lenient() {
        return parse_event(&value.to_string(), version);
    }
    canonical_object(value)
}

/// The event's canonical text without these top-level fields, redacted if asked.
pub(crate) fn print_event(
    event: &CanonicalJsonObject,
    version: &RoomVersion,
    without: &[&str],
    redacted: bool,
) -> Result<String, CanonicalError> {
    let mut printer = RedactingSerializer::new().custom_redacted_root_fields(without);
    if redacted {
        if !matches!(event.get("type"), Some(CanonicalJsonValue::String(_))) {
            return Err(CanonicalError::NotAnEvent);
        }
        printer = printer.rules(&version.rules.redaction);
    }
    let text = printer.serialize(event).map_err(CanonicalError::NotJson)?;
    Ok(if version.is_lenient() { lenient::restore(text) } else { text })
}

/// The event holds only what the room version's redaction algorithm keeps; its event id and signatures stay valid.
///
/// # Errors
/// [`CanonicalError::NotAnEvent`] when `type` is missing or `content` is not an object.
pub fn redact_object(event: &mut CanonicalJsonObject, version: &RoomVersion) -> Result<(), CanonicalError> {
    if !matches!(event.get("content"), Some(CanonicalJsonValue::Object(_))) {
        return Err(CanonicalError::NotAnEvent);
    }
    redact_in_place(event, &version.rules.redaction, None).map_err(|_not_an_event| CanonicalError::NotAnEvent)
}

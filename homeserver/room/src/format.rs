//! The event format of each room version and the size limits: the first check on receipt.
//!
//! Spec: <https://spec.matrix.org/v1.19/client-server-api/#size-limits>, `rooms/*/#event-format`.

use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, EventId, Int, RoomId, UserId,
    room_version_rules::EventsReferenceFormatVersion,
};
use thiserror::Error;

use crate::{canonical::CanonicalError, lenient, pdu::create_event_id_of, version::RoomVersion};

/// The most bytes that an event may have in canonical form, signatures included.
pub const MAX_PDU_BYTES: usize = 65_536;
/// The most bytes of `type`, `sender`, `room_id`, `state_key` and `event_id`.
pub const MAX_ID_BYTES: usize = 255;
/// The most entries of `prev_events`.
pub const MAX_PREV_EVENTS: usize = 20;
/// The most entries of `auth_events`.
pub const MAX_AUTH_EVENTS: usize = 10;

/// Why bytes are no event of the room version. The event is dropped. No variant holds content.
#[derive(Debug, Error)]
pub enum FormatError {
    /// Larger than [`MAX_PDU_BYTES`] (`M_TOO_LARGE`).
    #[error("the event has {size_bytes} bytes, more than {MAX_PDU_BYTES}")]
    TooLarge {
        /// Its size in canonical form.
        size_bytes: usize,
    },
    /// Not canonical JSON (`M_NOT_JSON` or `M_BAD_JSON`).
    #[error(transparent)]
    Canonical(#[from] CanonicalError),
    /// A field is missing (`M_MISSING_PARAM`).
    #[error("the event has no `{field}`")]
    Missing {
        /// The field.
        field: &'static str,
    },
    /// A field has the wrong type, is malformed or too long (`M_BAD_JSON`).
    #[error("the event's `{field}` is malformed")]
    Malformed {
        /// The field.
        field: &'static str,
    },
    /// A field is longer than the limit (`M_TOO_LARGE`).
    #[error("the event's `{field}` is longer than allowed")]
    TooLong {
        /// The field.
        field: &'static str,
    },
    /// A field is there that the room version forbids (`M_BAD_JSON`).
    #[error("the event must not have `{field}`")]
    Superfluous {
        /// The field.
        field: &'static str,
    },
    /// `auth_events` names the create event where the version implies it (`M_BAD_JSON`).
    #[error("the event names the create event among its auth events")]
    CreateInAuthEvents,
}

/// The object is an event of this room version within the limits.
pub(crate) fn check_format(object: &CanonicalJsonObject, version: &RoomVersion) -> Result<(), FormatError> {
    let kind = required_text(object, "type")?;
    let sender = required_text(object, "sender")?;
    UserId::parse(sender).map_err(|_malformed| FormatError::Malformed { field: "sender" })?;
    optional_text(object, "state_key")?;
    match object.get("content") {
        Some(CanonicalJsonValue::Object(content)) if !(version.is_lenient() && lenient::is_number(content)) => {}
        Some(_) => return Err(FormatError::Malformed { field: "content" }),
        None => return Err(FormatError::Missing { field: "content" }),
    }
    for field in ["depth", "origin_server_ts"] {
        match object.get(field) {
            Some(CanonicalJsonValue::Integer(value)) if *value >= Int::from(0) => {}
            Some(_) => return Err(FormatError::Malformed { field }),
            None => return Err(FormatError::Missing { field }),
        }
    }
    check_hashes(object)?;
    check_event_id(object, version)?;
    let room_id = check_room_id(object, kind, version)?;
    check_references(object, "prev_events", MAX_PREV_EVENTS, version, |_id| Ok(()))?;
    let create = room_id.filter(|_| !version.rules.event_format.allow_room_create_in_auth_events);
    let create = create.and_then(|room_id| create_event_id_of(<&RoomId>::try_from(room_id).ok()?));
    check_references(object, "auth_events", MAX_AUTH_EVENTS, version, |id| {
        if create.as_ref().is_some_and(|create| create.as_str() == id) {
            return Err(FormatError::CreateInAuthEvents);
        }
        Ok(())
    })
}

/// `hashes` and `signatures` are objects; what they hold is judged later.
fn check_hashes(object: &CanonicalJsonObject) -> Result<(), FormatError> {
    for field in ["hashes", "signatures"] {
        match object.get(field) {
            Some(CanonicalJsonValue::Object(_)) => {}
            Some(_) => return Err(FormatError::Malformed { field }),
            None => return Err(FormatError::Missing { field }),
        }
    }
    Ok(())
}

/// Versions 1 and 2 carry the event id; later ones must not, or the id would depend on who computes it.
fn check_event_id(object: &CanonicalJsonObject, version: &RoomVersion) -> Result<(), FormatError> {
    if !version.has_event_id_field() {
        return match object.get("event_id") {
            None => Ok(()),
            Some(_) => Err(FormatError::Superfluous { field: "event_id" }),
        };
    }
    let id = required_text(object, "event_id")?;
    match EventId::parse(id) {
        Ok(id) if id.server_name().is_some() => Ok(()),
        _ => Err(FormatError::Malformed { field: "event_id" }),
    }
}

/// Every event names its room, except the create event that founds a version 12 room.
fn check_room_id<'a>(
    object: &'a CanonicalJsonObject,
    kind: &str,
    version: &RoomVersion,
) -> Result<Option<&'a str>, FormatError> {
    if kind == "m.room.create" && !version.rules.event_format.require_room_create_room_id {
        return match object.get("room_id") {
            None => Ok(None),
            Some(_) => Err(FormatError::Superfluous { field: "room_id" }),
        };
    }
    let room_id = required_text(object, "room_id")?;
    RoomId::parse(room_id).map_err(|_malformed| FormatError::Malformed { field: "room_id" })?;
    Ok(Some(room_id))
}

/// A list of event references of the version's format, no longer than the limit.
fn check_references(
    object: &CanonicalJsonObject,
    field: &'static str,
    limit: usize,
    version: &RoomVersion,
    check: impl Fn(&str) -> Result<(), FormatError>,
) -> Result<(), FormatError> {
    let malformed = || FormatError::Malformed { field };
    let list = match object.get(field) {
        Some(CanonicalJsonValue::Array(list)) => list,
        Some(_) => return Err(malformed()),
        None => return Err(FormatError::Missing { field }),
    };
    if list.len() > limit {
        return Err(FormatError::TooLong { field });
    }
    for entry in list {
        let id = match (version.rules.events_reference_format, entry) {
            (EventsReferenceFormatVersion::V1, CanonicalJsonValue::Array(pair)) => match pair.as_slice() {
                [CanonicalJsonValue::String(id), CanonicalJsonValue::Object(_)] => id,
                _ => return Err(malformed()),
            },
            (EventsReferenceFormatVersion::V2, CanonicalJsonValue::String(id)) => id,
            _ => return Err(malformed()),
        };
        if id.len() > MAX_ID_BYTES {
            return Err(FormatError::TooLong { field });
        }
        EventId::parse(id).map_err(|_malformed| malformed())?;
        check(id)?;
    }
    Ok(())
}

fn optional_text<'a>(object: &'a CanonicalJsonObject, field: &'static str) -> Result<Option<&'a str>, FormatError> {
    match object.get(field) {
        Some(CanonicalJsonValue::String(text)) if text.len() <= MAX_ID_BYTES => Ok(Some(text)),
        Some(CanonicalJsonValue::String(_)) => Err(FormatError::TooLong { field }),
        Some(_) => Err(FormatError::Malformed { field }),
        None => Ok(None),
    }
}

fn required_text<'a>(object: &'a CanonicalJsonObject, field: &'static str) -> Result<&'a str, FormatError> {
    optional_text(object, field)?.ok_or(FormatError::Missing { field })
}

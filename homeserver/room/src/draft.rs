//! Our own events: drafted, then sealed with hash, signature and id.
//!
//! Spec: <https://spec.matrix.org/v1.19/server-server-api/#signing-events>.

use std::{collections::BTreeMap, fmt};

use base64::{
    Engine,
    engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};
use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, OwnedEventId, OwnedRoomId, OwnedUserId, ServerName, UInt,
    room_version_rules::EventsReferenceFormatVersion,
};
use serde_json::Value;
use thiserror::Error;

use crate::{
    canonical::{CanonicalError, event_object, print_event},
    format::{FormatError, MAX_PDU_BYTES, check_format},
    hash::content_hash,
    key::SigningKey,
    pdu::{Pdu, PduError},
    sign,
    unchecked::event_id_of,
    version::RoomVersion,
};

/// Where the nonce of a version 12 create event stands in its content. Redaction keeps all of a create event's content.
const NONCE_FIELD: &str = "org.matron.nonce";

/// Why a draft cannot become an event.
#[derive(Debug, Error)]
pub enum SealError {
    /// Larger than 65536 bytes with its signature (`M_TOO_LARGE`).
    #[error("the event has {size_bytes} bytes, more than {MAX_PDU_BYTES}")]
    TooLarge {
        /// Its size in canonical form, signature included.
        size_bytes: usize,
    },
    /// The content has no canonical form: a fraction, a large integer, not an object (`M_BAD_JSON`).
    #[error(transparent)]
    Canonical(#[from] CanonicalError),
    /// A field breaks the event format (`M_BAD_JSON`, or `M_TOO_LARGE` for [`FormatError::TooLong`]).
    #[error(transparent)]
    Format(FormatError),
    /// A version 12 create event without a nonce: a mistake of the caller.
    #[error("a create event that founds its room id needs a nonce")]
    NonceMissing,
    /// Depth or time beyond 2^53 - 1: a mistake of the caller.
    #[error("the event's `{field}` is too large a number")]
    Number {
        /// The field.
        field: &'static str,
    },
    /// The sealed bytes do not read back as an event.
    #[error(transparent)]
    Pdu(#[from] PduError),
}

/// Sixteen random bytes that make two rooms of one creator in one millisecond two rooms.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct CreateNonce([u8; 16]);

impl CreateNonce {
    /// The nonce of these random bytes.
    pub fn from_random(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for CreateNonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CreateNonce")
    }
}

/// An event of ours before it has hash, signature and id.
#[derive(Clone)]
pub struct DraftPdu {
    /// The room; `None` for the create event of a version 12 room.
    pub room_id: Option<OwnedRoomId>,
    /// Who sends it.
    pub sender: OwnedUserId,
    /// The event's `type`.
    pub kind: String,
    /// The state key, for state.
    pub state_key: Option<String>,
    /// The content, an object.
    pub content: Value,
    /// What a redaction redacts; sealing puts it at the top level before version 11 and into the content since.
    pub redacts: Option<OwnedEventId>,
    /// The forward extremities that it follows.
    pub prev_events: Vec<OwnedEventId>,
    /// Its authority; sealing leaves out the create event where the version implies it.
    pub auth_events: Vec<OwnedEventId>,
    /// One more than the greatest depth of `prev_events`.
    pub depth: u64,
    /// Now, in milliseconds since 1970.
    pub origin_server_ts_ms: u64,
    /// Neither hashed nor signed, but part of the federation form; usually `None`.
    pub unsigned: Option<Value>,
    /// Random, for create events; needed in version 12, unused for other events.
    pub nonce: Option<CreateNonce>,
}

impl DraftPdu {
    /// A draft with nothing but what was said; graph, time and the rest are set by field.
    pub fn new(room_id: Option<OwnedRoomId>, sender: OwnedUserId, kind: impl Into<String>, content: Value) -> Self {
        Self {
            room_id,
            sender,
            kind: kind.into(),
            state_key: None,
            content,
            redacts: None,
            prev_events: Vec::new(),
            auth_events: Vec::new(),
            depth: 1,
            origin_server_ts_ms: 0,
            unsigned: None,
            nonce: None,
        }
    }

    /// The same draft as state under this key.
    #[must_use]
    pub fn with_state_key(mut self, state_key: impl Into<String>) -> Self {
        self.state_key = Some(state_key.into());
        self
    }

    /// The event: hashed, signed by the server, within the limits, with its id (and, for version 12 creation, its room id).
    ///
    /// # Errors
    /// [`SealError`], by what is wrong with the draft.
    pub fn seal(self, version: &'static RoomVersion, key: &SigningKey, server: &ServerName) -> Result<Pdu, SealError> {
        self.seal_with_references(version, key, server, &BTreeMap::new())
    }

    /// As [`DraftPdu::seal`], with the reference hashes (see [`Pdu::reference_hash`]) that versions 1 and 2 write beside
    /// the events they refer to. Nobody is known to read them.
    ///
    /// # Errors
    /// [`SealError`], by what is wrong with the draft.
    pub fn seal_with_references(
        self,
        version: &'static RoomVersion,
        key: &SigningKey,
        server: &ServerName,
        reference_hashes: &BTreeMap<OwnedEventId, String>,
    ) -> Result<Pdu, SealError> {
        let mut object = self.to_object(version, reference_hashes)?;
        if version.has_event_id_field() {
            let id = local_event_id(&object, server, version)?;
            object.insert("event_id".to_owned(), CanonicalJsonValue::String(id));
        }
        seal_object(object, version, key, server)
    }

    /// The draft as an event without hashes and signatures.
    pub(crate) fn to_object(
        &self,
        version: &'static RoomVersion,
        reference_hashes: &BTreeMap<OwnedEventId, String>,
    ) -> Result<CanonicalJsonObject, SealError> {
        let number = |field: &'static str, value: u64| {
            UInt::try_from(value)
                .map(|value| CanonicalJsonValue::Integer(value.into()))
                .map_err(|_too_large| SealError::Number { field })
        };
        let text = |text: &str| CanonicalJsonValue::String(text.to_owned());

        let mut content = event_object(&self.content, version)?;
        let founds_room_id = self.kind == "m.room.create" && version.has_hashed_room_id();
        if founds_room_id {
            let nonce = self.nonce.ok_or(SealError::NonceMissing)?;
            content.insert(NONCE_FIELD.to_owned(), CanonicalJsonValue::String(URL_SAFE_NO_PAD.encode(nonce.0)));
        }
        let mut object = CanonicalJsonObject::new();
        if let Some(redacts) = &self.redacts {
            if version.has_redacts_in_content() {
                content.insert("redacts".to_owned(), text(redacts.as_str()));
            } else {
                object.insert("redacts".to_owned(), text(redacts.as_str()));
            }
        }
        if let Some(room_id) = self.room_id.as_ref().filter(|_| !founds_room_id) {
            object.insert("room_id".to_owned(), text(room_id.as_str()));
        }
        if let Some(state_key) = &self.state_key {
            object.insert("state_key".to_owned(), text(state_key));
        }
        if let Some(unsigned) = &self.unsigned {
            object.insert("unsigned".to_owned(), CanonicalJsonValue::Object(event_object(unsigned, version)?));
        }
        let create = self.room_id.as_ref().filter(|_| version.has_hashed_room_id());
        let create = create.and_then(|room_id| crate::pdu::create_event_id_of(room_id));
        let auth_events = self.auth_events.iter().filter(|id| create.as_ref() != Some(*id));
        object.insert("auth_events".to_owned(), references(auth_events, version, reference_hashes));
        object.insert("prev_events".to_owned(), references(self.prev_events.iter(), version, reference_hashes));
        object.insert("content".to_owned(), CanonicalJsonValue::Object(content));
        object.insert("depth".to_owned(), number("depth", self.depth)?);
        object.insert("origin_server_ts".to_owned(), number("origin_server_ts", self.origin_server_ts_ms)?);
        object.insert("sender".to_owned(), text(self.sender.as_str()));
        object.insert("type".to_owned(), text(&self.kind));
        Ok(object)
    }
}

impl fmt::Debug for DraftPdu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DraftPdu").field("room_id", &self.room_id).field("type", &self.kind).finish_non_exhaustive()
    }
}

/// The event of this object: hashed, signed, checked, with its id.
pub(crate) fn seal_object(
    mut object: CanonicalJsonObject,
    version: &'static RoomVersion,
    key: &SigningKey,
    server: &ServerName,
) -> Result<Pdu, SealError> {
    let hash = STANDARD_NO_PAD.encode(content_hash(&object, version)?);
    let hashes = CanonicalJsonObject::from([("sha256".to_owned(), CanonicalJsonValue::String(hash))]);
    object.insert("hashes".to_owned(), CanonicalJsonValue::Object(hashes));
    object.remove("signatures");
    let signing_text = sign::sign_event(&mut object, key, server, version)?;
    check_format(&object, version).map_err(SealError::Format)?;
    let json = print_event(&object, version, &[], false)?;
    if json.len() > MAX_PDU_BYTES {
        return Err(SealError::TooLarge { size_bytes: json.len() });
    }
    let event_id = event_id_of(&object, &signing_text, version).map_err(SealError::Format)?;
    Ok(Pdu::assemble(json, version, event_id)?)
}

/// A version 1 or 2 event id: the server's to choose, so a part of the content's hash.
pub(crate) fn local_event_id(
    object: &CanonicalJsonObject,
    server: &ServerName,
    version: &RoomVersion,
) -> Result<String, SealError> {
    let hash = content_hash(object, version)?;
    let local = URL_SAFE_NO_PAD.encode(hash.get(..18).unwrap_or(&hash));
    Ok(format!("${local}:{server}"))
}

/// Event references in the version's format.
fn references<'a>(
    ids: impl Iterator<Item = &'a OwnedEventId>,
    version: &RoomVersion,
    hashes: &BTreeMap<OwnedEventId, String>,
) -> CanonicalJsonValue {
    let text = |text: &str| CanonicalJsonValue::String(text.to_owned());
    let reference = |id: &OwnedEventId| match version.rules.events_reference_format {
        EventsReferenceFormatVersion::V1 => {
            let hash = hashes.get(id).map(|hash| ("sha256".to_owned(), text(hash)));
            CanonicalJsonValue::Array(vec![text(id.as_str()), CanonicalJsonValue::Object(hash.into_iter().collect())])
        }
        _ => text(id.as_str()),
    };
    CanonicalJsonValue::Array(ids.map(reference).collect())
}

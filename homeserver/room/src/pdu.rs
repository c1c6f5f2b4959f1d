//! The event: immutable bytes, the fields that everyone asks for, and an id that was computed here.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedRoomId, RoomId,
    UserId, events::TimelineEventType, state_res::Event,
};
use serde::{Serialize, Serializer, de::DeserializeOwned};
use serde_json::value::RawValue;
use thiserror::Error;

use crate::{
    canonical::{CanonicalError, parse_event, print_event, redact_object},
    key::SigningKey,
    membership::Membership,
    power_levels::{Founding, Levels},
    raw::known_json,
    sign,
    version::RoomVersion,
    wire::Fields,
};

/// Why bytes do not make an event.
#[derive(Debug, Error)]
pub enum PduError {
    /// A field is missing or of the wrong type (`M_BAD_JSON`).
    #[error("not an event of this room version")]
    NotAnEvent(#[source] serde_json::Error),
    /// The event belongs to no room, or a version 12 create event names one (`M_BAD_JSON`).
    #[error("the event's room id is missing, malformed or superfluous")]
    RoomId,
    /// The event's own `event_id` (versions 1 and 2) is missing or another than expected (`M_BAD_JSON`).
    #[error("the event's id is missing or another than expected")]
    EventId,
    /// The event has no canonical form.
    #[error(transparent)]
    Canonical(#[from] CanonicalError),
}

/// The event's content does not have the shape that the caller expects.
#[derive(Debug, Error)]
#[error("the event's content has another shape")]
pub struct ContentError(#[source] serde_json::Error);

/// An event whose id was computed by us. Cheap to clone; never changes.
///
/// Two values are equal when their event ids are.
#[derive(Clone)]
pub struct Pdu(Arc<Inner>);

struct Inner {
    json: Box<RawValue>,
    fields: Fields,
    event_id: OwnedEventId,
    room_id: OwnedRoomId,
    version: &'static RoomVersion,
    founding: OnceLock<Arc<Founding>>,
    levels: OnceLock<Arc<Levels>>,
}

impl Pdu {
    /// The event that our own store holds under this id, without hashing it again.
    ///
    /// The bytes must be what [`Pdu::json`] gave, of the event or of its skeleton. Bytes from anywhere else go
    /// through [`crate::UncheckedPdu`].
    ///
    /// # Errors
    /// [`PduError`] when the bytes are not an event: the store is damaged.
    pub fn from_stored(json: &str, version: &'static RoomVersion, event_id: OwnedEventId) -> Result<Self, PduError> {
        Self::assemble(json.to_owned(), version, event_id)
    }

    /// The event of these canonical bytes, whose id the caller has computed.
    pub(crate) fn assemble(
        json: String,
        version: &'static RoomVersion,
        event_id: OwnedEventId,
    ) -> Result<Self, PduError> {
        let fields = Fields::read(&json, version)?;
        if version.has_event_id_field() && fields.event_id.as_ref() != Some(&event_id) {
            return Err(PduError::EventId);
        }
        let room_id = match &fields.room_id {
            Some(room_id) => room_id.clone(),
            None if version.has_hashed_room_id() && &*fields.kind == "m.room.create" => {
                room_id_of_create(&event_id).ok_or(PduError::RoomId)?
            }
            None => return Err(PduError::RoomId),
        };
        Ok(Self(Arc::new(Inner {
            // INVARIANT: the fields were read from all of it.
            json: known_json(json),
            fields,
            event_id,
            room_id,
            version,
            founding: OnceLock::new(),
            levels: OnceLock::new(),
        })))
    }

    /// The event's id.
    #[inline]
    pub fn event_id(&self) -> &EventId {
        &self.0.event_id
    }

    /// The room's id; for a version 12 create event the one that follows from its hash.
    #[inline]
    pub fn room_id(&self) -> &RoomId {
        &self.0.room_id
    }

    /// Who sent it.
    #[inline]
    pub fn sender(&self) -> &UserId {
        &self.0.fields.sender
    }

    /// The event's `type`.
    #[inline]
    pub fn kind(&self) -> &str {
        &self.0.fields.kind
    }

    /// The state key; `None` for events that are not state.
    #[inline]
    pub fn state_key(&self) -> Option<&str> {
        self.0.fields.state_key.as_deref()
    }

    /// Whether the event is state.
    #[inline]
    pub fn is_state(&self) -> bool {
        self.0.fields.state_key.is_some()
    }

    /// Whether the event is state of this type under this key.
    pub fn is_state_of(&self, kind: &str, state_key: &str) -> bool {
        self.kind() == kind && self.state_key() == Some(state_key)
    }

    /// When its server says that it was sent, in milliseconds since 1970. Not to be trusted.
    #[inline]
    pub fn origin_server_ts_ms(&self) -> u64 {
        self.0.fields.origin_server_ts.into()
    }

    /// The depth that its server gave it. Not to be trusted.
    pub fn depth(&self) -> u64 {
        self.0.fields.depth.into()
    }

    /// The events that it follows.
    pub fn prev_events(&self) -> &[OwnedEventId] {
        &self.0.fields.prev_events
    }

    /// The events that it names as its authority; in version 12 the create event is implied and not among them.
    pub fn auth_events(&self) -> &[OwnedEventId] {
        &self.0.fields.auth_events
    }

    /// The auth events, and in version 12 the implied create event too (unless this is it).
    pub fn auth_event_ids_with_create(&self) -> Vec<OwnedEventId> {
        let mut ids = self.auth_events().to_vec();
        if self.0.version.has_hashed_room_id()
            && self.kind() != "m.room.create"
            && let Some(create) = create_event_id_of(self.room_id())
        {
            ids.push(create);
        }
        ids
    }

    /// The event that this redaction redacts: from the top level before version 11, from the content since.
    pub fn redacts(&self) -> Option<OwnedEventId> {
        self.0.fields.redacts.clone()
    }

    /// Whether the content has a `redacts` field of its own.
    pub(crate) fn content_has_redacts(&self) -> bool {
        self.0.fields.content_has_redacts
    }

    /// The content's bytes. Costs a scan; [`Pdu::content_str`] costs nothing.
    pub fn content(&self) -> &RawValue {
        // INVARIANT: the range covers a JSON value, so the fallback is never taken.
        serde_json::from_str(self.content_str()).unwrap_or(RawValue::NULL)
    }

    /// The content as canonical text.
    #[inline]
    pub fn content_str(&self) -> &str {
        self.0.json.get().get(self.0.fields.content.clone()).unwrap_or("{}")
    }

    /// The content as the caller's type.
    ///
    /// # Errors
    /// [`ContentError`] when it has another shape.
    pub fn content_as<T: DeserializeOwned>(&self) -> Result<T, ContentError> {
        serde_json::from_str(self.content_str()).map_err(ContentError)
    }

    /// The content as a tree.
    pub fn content_value(&self) -> serde_json::Value {
        serde_json::from_str(self.content_str()).unwrap_or_default()
    }

    /// The federation form in canonical JSON: without `event_id`, except in versions 1 and 2.
    pub fn json(&self) -> &RawValue {
        &self.0.json
    }

    /// The whole event as a canonical tree, to be signed, compared or redacted.
    ///
    /// # Errors
    /// [`CanonicalError`]; cannot happen for an event that was parsed or sealed here.
    pub fn to_object(&self) -> Result<CanonicalJsonObject, CanonicalError> {
        parse_event(self.0.json.get(), self.0.version)
    }

    /// The room's version.
    pub fn room_version(&self) -> &'static RoomVersion {
        self.0.version
    }

    /// The content hash that the event carries, in base64.
    pub fn content_hash(&self) -> Option<&str> {
        self.0.fields.content_hash.as_deref()
    }

    /// The event's reference hash, in the alphabet of the version; since version 3 the event id without its sigil.
    ///
    /// # Errors
    /// [`PduError`]; cannot happen for an event that was parsed or sealed here.
    pub fn reference_hash(&self) -> Result<String, PduError> {
        Ok(crate::hash::reference_hash(&self.to_object()?, self.0.version)?)
    }

    /// The size of the federation form, in bytes.
    pub fn size_bytes(&self) -> usize {
        self.0.json.get().len()
    }

    /// The `membership` of a member event, as written.
    #[inline]
    pub fn membership(&self) -> Option<&str> {
        self.0.fields.membership.as_deref()
    }

    /// The membership of a member event, if it is a known one.
    pub fn membership_state(&self) -> Option<Membership> {
        self.membership().and_then(Membership::parse)
    }

    /// What this says about power as a create event; read once.
    pub(crate) fn founding(&self) -> &Arc<Founding> {
        self.0.founding.get_or_init(|| Arc::new(Founding::read(self)))
    }

    /// What this says as a power levels event; read once.
    pub(crate) fn levels(&self) -> &Arc<Levels> {
        self.0.levels.get_or_init(|| Arc::new(Levels::read(self)))
    }

    /// Whether the bytes no longer match the content hash: this is a skeleton, or someone altered it.
    pub fn is_redacted(&self) -> bool {
        let Ok(object) = self.to_object() else {
            return true;
        };
        !content_hash_matches(&object, self.0.version)
    }

    /// The event with only what the room version's redaction keeps: same event id, same signatures.
    ///
    /// # Errors
    /// [`PduError`]; cannot happen for an event that was parsed or sealed here.
    pub fn skeleton(&self) -> Result<Self, PduError> {
        let mut object = self.to_object()?;
        redact_object(&mut object, self.0.version)?;
        Self::assemble(print_event(&object, self.0.version, &[], false)?, self.0.version, self.0.event_id.clone())
    }

    /// The event without anything that anybody said in it: its skeleton, and of a redaction also what it redacts, which
    /// room versions before 11 let go.
    ///
    /// # Errors
    /// [`PduError`]; cannot happen for an event that was parsed or sealed here.
    pub fn without_words(&self) -> Result<Self, PduError> {
        let mut object = self.to_object()?;
        let redacts = if self.kind() == "m.room.redaction" { object.get("redacts").cloned() } else { None };
        redact_object(&mut object, self.0.version)?;
        if let Some(redacts @ CanonicalJsonValue::String(_)) = redacts {
            object.insert("redacts".to_owned(), redacts);
        }
        Self::assemble(print_event(&object, self.0.version, &[], false)?, self.0.version, self.0.event_id.clone())
    }

    /// The same event with our signature added under the server's name, for restricted joins, invites and policy servers.
    ///
    /// # Errors
    /// [`PduError`]; cannot happen for an event that was parsed or sealed here.
    pub fn with_signature(&self, key: &SigningKey, server: &ruma::ServerName) -> Result<Self, PduError> {
        let mut object = self.to_object()?;
        sign::sign_event(&mut object, key, server, self.0.version)?;
        Self::assemble(print_event(&object, self.0.version, &[], false)?, self.0.version, self.0.event_id.clone())
    }

    /// The same event with a signature that another server or a policy server gave for it.
    ///
    /// The caller verifies it; a signature is no part of the event's identity.
    ///
    /// # Errors
    /// [`PduError`]; cannot happen for an event that was parsed or sealed here.
    pub fn with_foreign_signature(&self, entity: &str, key_id: &str, signature: &str) -> Result<Self, PduError> {
        let mut object = self.to_object()?;
        sign::insert_signature(&mut object, entity, key_id, signature)?;
        Self::assemble(print_event(&object, self.0.version, &[], false)?, self.0.version, self.0.event_id.clone())
    }

    /// Whether the entity signed the event with this key, under this key id.
    #[must_use]
    pub fn is_signed_by(&self, entity: &str, key_id: &str, key: &crate::VerifyKey) -> bool {
        let Ok(object) = self.to_object() else { return false };
        let Ok(text) = sign::event_signing_text(&object, self.0.version) else { return false };
        sign::signing_key_ids(&object, entity).any(|(id, signature)| {
            id == key_id && signature.is_some_and(|signature| key.verifies(text.as_bytes(), signature))
        })
    }

    /// Our signature over the event, in base64, without changing it.
    ///
    /// # Errors
    /// [`PduError`]; cannot happen for an event that was parsed or sealed here.
    pub fn signature_by(&self, key: &SigningKey) -> Result<String, PduError> {
        Ok(key.sign_bytes(sign::event_signing_text(&self.to_object()?, self.0.version)?.as_bytes()))
    }
}

/// The room id that a version 12 create event founds.
pub(crate) fn room_id_of_create(event_id: &EventId) -> Option<OwnedRoomId> {
    let hash = event_id.as_str().strip_prefix('$')?;
    RoomId::parse(format!("!{hash}")).ok()
}

/// The create event's id, from a version 12 room id.
pub(crate) fn create_event_id_of(room_id: &RoomId) -> Option<OwnedEventId> {
    let hash = room_id.as_str().strip_prefix('!')?;
    EventId::parse(format!("${hash}")).ok()
}

/// Whether `hashes.sha256` is the hash of the event's content.
pub(crate) fn content_hash_matches(object: &CanonicalJsonObject, version: &RoomVersion) -> bool {
    use base64::Engine as _;
    let Some(CanonicalJsonValue::Object(hashes)) = object.get("hashes") else {
        return false;
    };
    let Some(CanonicalJsonValue::String(claimed)) = hashes.get("sha256") else {
        return false;
    };
    let Ok(claimed) = crate::key::LENIENT.decode(claimed) else {
        return false;
    };
    crate::hash::content_hash(object, version).is_ok_and(|computed| computed.as_slice() == claimed)
}

impl fmt::Debug for Pdu {
    /// Prints what the graph knows, nothing that a person wrote.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pdu")
            .field("event_id", &self.0.event_id)
            .field("room_id", &self.0.room_id)
            .field("type", &self.0.fields.kind)
            .finish_non_exhaustive()
    }
}

impl Serialize for Pdu {
    /// Writes the federation form.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.json.serialize(serializer)
    }
}

impl PartialEq for Pdu {
    fn eq(&self, other: &Self) -> bool {
        self.0.event_id == other.0.event_id
    }
}

impl Eq for Pdu {}

impl Event for Pdu {
    type Id = OwnedEventId;

    fn event_id(&self) -> &OwnedEventId {
        &self.0.event_id
    }

    fn room_id(&self) -> Option<&RoomId> {
        // The rules ask for the field: a version 12 create event must not have one.
        self.0.fields.room_id.as_deref()
    }

    fn sender(&self) -> &UserId {
        &self.0.fields.sender
    }

    fn origin_server_ts(&self) -> MilliSecondsSinceUnixEpoch {
        MilliSecondsSinceUnixEpoch(self.0.fields.origin_server_ts)
    }

    fn event_type(&self) -> &TimelineEventType {
        &self.0.fields.event_type
    }

    fn content(&self) -> &RawValue {
        Pdu::content(self)
    }

    fn state_key(&self) -> Option<&str> {
        Pdu::state_key(self)
    }

    fn prev_events(&self) -> Box<dyn DoubleEndedIterator<Item = &OwnedEventId> + '_> {
        Box::new(self.0.fields.prev_events.iter())
    }

    fn auth_events(&self) -> Box<dyn DoubleEndedIterator<Item = &OwnedEventId> + '_> {
        Box::new(self.0.fields.auth_events.iter())
    }

    fn redacts(&self) -> Option<&OwnedEventId> {
        self.0.fields.redacts.as_ref()
    }

    fn rejected(&self) -> bool {
        // Whoever hands events to the rules leaves rejected ones out.
        false
    }
}

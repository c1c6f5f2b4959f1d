//! Events from outside: read, then verified. Each step is a type, so none can be left out.
//!
//! Spec: <https://spec.matrix.org/v1.19/server-server-api/#checks-performed-on-receipt-of-a-pdu>, steps 1 to 3.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, EventId, OwnedEventId, OwnedServerName, RoomId, ServerName, UserId,
};
use serde_json::value::RawValue;

use crate::{
    canonical::{parse_event, print_event, redact_object},
    format::{FormatError, MAX_PDU_BYTES, check_format},
    hash::reference_hash_of,
    pdu::{Pdu, content_hash_matches},
    sign::{self, KeySource, SignatureError, verify_entity},
    version::RoomVersion,
};

/// An event of the right format whose signatures nobody has checked.
pub struct UncheckedPdu {
    object: CanonicalJsonObject,
    /// What is signed of it, and what its id is the hash of.
    signing_text: String,
    pdu: Pdu,
}

/// Whether the content is what the sender's server hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentState {
    /// The content hash matches.
    Intact,
    /// The content hash does not match: the event was redacted on the way, so we hold its redacted form.
    Redacted,
}

/// An event that every server which must sign it has signed.
#[derive(Debug, Clone)]
pub struct SignedPdu {
    pdu: Pdu,
    content: ContentState,
}

impl UncheckedPdu {
    /// The event that this JSON spells, within the format and the limits of the room version, with its id computed.
    ///
    /// `unsigned` is dropped: nobody vouches for it.
    ///
    /// # Errors
    /// [`FormatError`]: the event is dropped.
    pub fn parse(json: &RawValue, version: &'static RoomVersion) -> Result<Self, FormatError> {
        Self::parse_str(json.get(), version)
    }

    /// As [`UncheckedPdu::parse`], from text.
    ///
    /// # Errors
    /// [`FormatError`]: the event is dropped.
    pub fn parse_str(json: &str, version: &'static RoomVersion) -> Result<Self, FormatError> {
        // Canonical form can be shorter than what was sent (spaces, escapes), but not without end.
        if json.len() > MAX_PDU_BYTES.saturating_mul(8) {
            return Err(FormatError::TooLarge { size_bytes: json.len() });
        }
        Self::parse_object(parse_event(json, version)?, version)
    }

    /// As [`UncheckedPdu::parse`], from a canonical tree.
    ///
    /// # Errors
    /// [`FormatError`]: the event is dropped.
    pub fn parse_object(mut object: CanonicalJsonObject, version: &'static RoomVersion) -> Result<Self, FormatError> {
        let mut text = print_event(&object, version, &[], false)?;
        if text.len() > MAX_PDU_BYTES {
            return Err(FormatError::TooLarge { size_bytes: text.len() });
        }
        check_format(&object, version)?;
        if object.remove("unsigned").is_some() {
            text = print_event(&object, version, &[], false)?;
        }
        let signing_text = sign::event_signing_text(&object, version)?;
        let event_id = event_id_of(&object, &signing_text, version)?;
        let pdu =
            Pdu::assemble(text, version, event_id).map_err(|_malformed| FormatError::Malformed { field: "event" })?;
        Ok(Self { object, signing_text, pdu })
    }

    /// The id, computed from the event (in versions 1 and 2: read from it).
    pub fn event_id(&self) -> &EventId {
        self.pdu.event_id()
    }

    /// The room that it claims to belong to.
    pub fn room_id(&self) -> &RoomId {
        self.pdu.room_id()
    }

    /// Who it claims to be from.
    pub fn sender(&self) -> &UserId {
        self.pdu.sender()
    }

    /// A look at the event before anything about it is known to be true.
    pub fn unverified(&self) -> &Pdu {
        &self.pdu
    }

    /// The servers that must have signed it.
    ///
    /// Spec: <https://spec.matrix.org/v1.19/server-server-api/#validating-hashes-and-signatures-on-received-events>.
    pub fn required_servers(&self) -> BTreeSet<OwnedServerName> {
        let rules = &self.pdu.room_version().rules.signatures;
        let content = self.object.get("content").and_then(CanonicalJsonValue::as_object);
        let is_member = self.pdu.kind() == "m.room.member";
        let by_third_party = is_member
            && self.pdu.membership() == Some("invite")
            && content.is_some_and(|content| content.contains_key("third_party_invite"));

        let mut servers = BTreeSet::new();
        if !by_third_party {
            servers.insert(self.pdu.sender().server_name().to_owned());
        }
        if rules.check_event_id_server
            && let Some(server) = self.pdu.event_id().server_name()
        {
            servers.insert(server.to_owned());
        }
        if rules.check_join_authorised_via_users_server
            && is_member
            && self.pdu.membership() == Some("join")
            && let Some(user) = content.and_then(|content| content.get("join_authorised_via_users_server"))
            && let Some(user) = user.as_str().and_then(|user| <&UserId>::try_from(user).ok())
        {
            servers.insert(user.server_name().to_owned());
        }
        servers
    }

    /// The keys to have at hand before [`UncheckedPdu::verify`]: per server that must sign, the key ids that it used.
    pub fn required_key_ids(&self) -> BTreeMap<OwnedServerName, BTreeSet<String>> {
        let key_ids = |server: &ServerName| {
            // A policy server's key stands in the room's state, never among a server's published keys.
            sign::signing_key_ids(&self.object, server.as_str())
                .map(|(key_id, _)| key_id.to_owned())
                .filter(|key_id| key_id != "ed25519:policy_server")
                .collect()
        };
        self.required_servers().into_iter().map(|server| (server.clone(), key_ids(&server))).collect()
    }

    /// The time at which keys must have been valid, in milliseconds; `None` where the version ignores it.
    pub fn keys_valid_at_ms(&self) -> Option<u64> {
        self.pdu.room_version().rules.enforce_key_validity.then(|| self.pdu.origin_server_ts_ms())
    }

    /// Every server that must sign has signed; an event whose content hash is wrong has become its redacted form.
    ///
    /// # Errors
    /// [`SignatureError`]: the event is dropped.
    pub fn verify(self, keys: &(impl KeySource + ?Sized)) -> Result<SignedPdu, SignatureError> {
        let version = self.pdu.room_version();
        let valid_at_ms = self.keys_valid_at_ms();
        for server in self.required_servers() {
            verify_entity(&self.object, server.as_str(), self.signing_text.as_bytes(), |key_id| {
                keys.find_key(&server, key_id, valid_at_ms)
            })?;
        }
        if content_hash_matches(&self.object, version) {
            return Ok(SignedPdu { pdu: self.pdu, content: ContentState::Intact });
        }
        let mut object = self.object;
        redact_object(&mut object, version)?;
        let pdu = Pdu::assemble(print_event(&object, version, &[], false)?, version, self.pdu.event_id().to_owned())
            .map_err(|_malformed| SignatureError::Malformed)?;
        Ok(SignedPdu { pdu, content: ContentState::Redacted })
    }

    /// This server has signed it with a known key, whether or not it had to.
    ///
    /// # Errors
    /// [`SignatureError`], by what fails.
    pub fn verify_server(&self, server: &ServerName, keys: &(impl KeySource + ?Sized)) -> Result<(), SignatureError> {
        verify_entity(&self.object, server.as_str(), self.signing_text.as_bytes(), |key_id| {
            keys.find_key(server, key_id, self.keys_valid_at_ms())
        })
    }

    /// The event, taken on trust: it comes from our own store, backup or tests, never from the network.
    pub fn trust_own(self) -> Pdu {
        self.pdu
    }
}

impl fmt::Debug for UncheckedPdu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("UncheckedPdu").field(&self.pdu).finish()
    }
}

impl SignedPdu {
    /// The event; its redacted form when the hash did not match.
    pub fn pdu(&self) -> &Pdu {
        &self.pdu
    }

    /// Whether the content is what was hashed.
    pub fn content(&self) -> ContentState {
        self.content
    }

    /// The event, by value.
    pub fn into_pdu(self) -> Pdu {
        self.pdu
    }
}

/// The event's id by the rules of the version; `signing_text` is what is signed of the event.
pub(crate) fn event_id_of(
    object: &CanonicalJsonObject,
    signing_text: &str,
    version: &RoomVersion,
) -> Result<OwnedEventId, FormatError> {
    let malformed = FormatError::Malformed { field: "event_id" };
    if version.has_event_id_field() {
        let id = object.get("event_id").and_then(CanonicalJsonValue::as_str).ok_or(malformed)?;
        return EventId::parse(id).map_err(|_malformed| FormatError::Malformed { field: "event_id" });
    }
    EventId::parse(format!("${}", reference_hash_of(signing_text, version))).map_err(|_malformed| malformed)
}

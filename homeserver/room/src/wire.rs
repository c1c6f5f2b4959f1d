//! The fields of a canonical event, read in one pass without building a tree of its content.

use std::{borrow::Cow, ops::Range};

use ruma::{
    OwnedEventId, OwnedRoomId, OwnedUserId, UInt, events::TimelineEventType,
    room_version_rules::EventsReferenceFormatVersion,
};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::value::RawValue;

use crate::{pdu::PduError, version::RoomVersion};

#[derive(Deserialize)]
struct Wire<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    sender: OwnedUserId,
    room_id: Option<OwnedRoomId>,
    event_id: Option<OwnedEventId>,
    state_key: Option<String>,
    #[serde(borrow)]
    content: &'a RawValue,
    origin_server_ts: UInt,
    depth: UInt,
    #[serde(borrow)]
    prev_events: &'a RawValue,
    #[serde(borrow)]
    auth_events: &'a RawValue,
    #[serde(borrow)]
    redacts: Option<&'a RawValue>,
    #[serde(default)]
    hashes: Hashes,
}

#[derive(Deserialize, Default)]
struct Hashes {
    sha256: Option<String>,
}

#[derive(Deserialize)]
struct RedactsInContent {
    redacts: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct MembershipInContent {
    membership: Option<serde_json::Value>,
}

/// What `Pdu` keeps beside the bytes.
pub(crate) struct Fields {
    pub(crate) kind: Box<str>,
    pub(crate) event_type: TimelineEventType,
    pub(crate) sender: OwnedUserId,
    pub(crate) room_id: Option<OwnedRoomId>,
    pub(crate) event_id: Option<OwnedEventId>,
    pub(crate) state_key: Option<Box<str>>,
    pub(crate) content: Range<usize>,
    pub(crate) origin_server_ts: UInt,
    pub(crate) depth: UInt,
    pub(crate) prev_events: Box<[OwnedEventId]>,
    pub(crate) auth_events: Box<[OwnedEventId]>,
    pub(crate) redacts: Option<OwnedEventId>,
    pub(crate) content_has_redacts: bool,
    pub(crate) membership: Option<Box<str>>,
    pub(crate) content_hash: Option<Box<str>>,
}

impl Fields {
    /// Reads the fields of an event in canonical form.
    pub(crate) fn read(json: &str, version: &RoomVersion) -> Result<Self, PduError> {
        let wire: Wire<'_> = serde_json::from_str(json).map_err(PduError::NotAnEvent)?;
        let content_text = wire.content.get();
        let start = content_text.as_ptr().addr() - json.as_ptr().addr();

        let mut content_redacts = None;
        let mut membership = None;
        match wire.kind.as_ref() {
            "m.room.redaction" => {
                content_redacts =
                    serde_json::from_str::<RedactsInContent>(content_text).ok().and_then(|content| content.redacts);
            }
            "m.room.member" => {
                membership = serde_json::from_str::<MembershipInContent>(content_text)
                    .ok()
                    .and_then(|content| content.membership)
                    .and_then(|value| value.as_str().map(Box::from));
            }
            _ => {}
        }
        let redacts = if version.has_redacts_in_content() {
            content_redacts.as_ref().and_then(|value| value.as_str()?.try_into().ok())
        } else {
            wire.redacts.and_then(|raw| serde_json::from_str(raw.get()).ok())
        };

        Ok(Self {
            event_type: TimelineEventType::from(wire.kind.as_ref()),
            kind: wire.kind.into(),
            sender: wire.sender,
            room_id: wire.room_id,
            event_id: wire.event_id,
            state_key: wire.state_key.map(String::into_boxed_str),
            content: start..start + content_text.len(),
            origin_server_ts: wire.origin_server_ts,
            depth: wire.depth,
            prev_events: references(wire.prev_events, version)?,
            auth_events: references(wire.auth_events, version)?,
            redacts,
            content_has_redacts: content_redacts.is_some(),
            membership,
            content_hash: wire.hashes.sha256.map(String::into_boxed_str),
        })
    }
}

/// The event ids of `prev_events` or `auth_events`; versions 1 and 2 pair each with a hash that nobody reads.
fn references(raw: &RawValue, version: &RoomVersion) -> Result<Box<[OwnedEventId]>, PduError> {
    match version.rules.events_reference_format {
        EventsReferenceFormatVersion::V1 => {
            let pairs: Vec<(OwnedEventId, IgnoredAny)> =
                serde_json::from_str(raw.get()).map_err(PduError::NotAnEvent)?;
            Ok(pairs.into_iter().map(|(id, _hashes)| id).collect())
        }
        _ => serde_json::from_str::<Vec<OwnedEventId>>(raw.get())
            .map(Vec::into_boxed_slice)
            .map_err(PduError::NotAnEvent),
    }
}

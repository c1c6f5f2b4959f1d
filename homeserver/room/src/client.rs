//! Events as clients see them, spliced from the stored bytes.
//!
//! Spec: <https://spec.matrix.org/v1.19/client-server-api/#room-event-format>.

use ruma::{EventId, OwnedEventId, OwnedUserId, RoomId};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::pdu::Pdu;

/// What a server adds to an event for one reader, at one time.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Unsigned {
    /// How long ago the event was sent, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age: Option<i64>,
    /// The sender's own transaction id, for the device that sent it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transaction_id: Option<String>,
    /// The content of the state that this replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prev_content: Option<Box<RawValue>>,
    /// Who sent the state that this replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prev_sender: Option<OwnedUserId>,
    /// The event that this state replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replaces_state: Option<OwnedEventId>,
    /// The redaction's id, if the event was redacted: off the specification, and clients look for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redacted_by: Option<OwnedEventId>,
    /// The redaction, in client form, if the event was redacted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redacted_because: Option<Box<RawValue>>,
    /// The reader's membership when the event was sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub membership: Option<&'static str>,
    /// Bundled aggregations.
    #[serde(rename = "m.relations", skip_serializing_if = "Option::is_none")]
    pub relations: Option<Box<RawValue>>,
    /// The state that an invited or knocking user may see.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub invite_room_state: Option<Vec<Box<RawValue>>>,
    /// As `invite_room_state`, for knocks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub knock_room_state: Option<Vec<Box<RawValue>>>,
}

/// The event in client form, with `room_id`, as `/messages`, `/event`, `/context` and pushes give it.
pub fn client_event(pdu: &Pdu, unsigned: &Unsigned) -> Box<RawValue> {
    let mut out = String::with_capacity(pdu.content_str().len() + 400);
    write_client_event(&mut out, pdu, unsigned, Some(pdu.room_id()));
    raw(out)
}

/// The event in client form, without `room_id`, as `/sync` gives it.
pub fn sync_event(pdu: &Pdu, unsigned: &Unsigned) -> Box<RawValue> {
    let mut out = String::with_capacity(pdu.content_str().len() + 300);
    write_client_event(&mut out, pdu, unsigned, None);
    raw(out)
}

/// The event in stripped form: `content`, `sender`, `state_key` and `type`.
///
/// Spec: <https://spec.matrix.org/v1.19/client-server-api/#stripped-state>.
pub fn stripped_event(pdu: &Pdu) -> Box<RawValue> {
    let mut out = String::with_capacity(pdu.content_str().len() + 100);
    out.push_str("{\"content\":");
    out.push_str(pdu.content_str());
    out.push_str(",\"sender\":");
    push_string(&mut out, pdu.sender().as_str());
    if let Some(state_key) = pdu.state_key() {
        out.push_str(",\"state_key\":");
        push_string(&mut out, state_key);
    }
    out.push_str(",\"type\":");
    push_string(&mut out, pdu.kind());
    out.push('}');
    raw(out)
}

/// The event in client form is appended to the text: keys sorted, content copied, nothing parsed.
///
/// A redaction names its target both at the top level and in the content, whichever the room version uses.
pub fn write_client_event(out: &mut String, pdu: &Pdu, unsigned: &Unsigned, room_id: Option<&RoomId>) {
    let redacts = pdu.redacts();
    out.push_str("{\"content\":");
    match &redacts {
        Some(target) if !pdu.content_has_redacts() => push_content_with_redacts(out, pdu.content_str(), target),
        _ => out.push_str(pdu.content_str()),
    }
    out.push_str(",\"event_id\":");
    push_string(out, pdu.event_id().as_str());
    out.push_str(",\"origin_server_ts\":");
    out.push_str(&pdu.origin_server_ts_ms().to_string());
    if let Some(target) = &redacts {
        out.push_str(",\"redacts\":");
        push_string(out, target.as_str());
    }
    if let Some(room_id) = room_id {
        out.push_str(",\"room_id\":");
        push_string(out, room_id.as_str());
    }
    out.push_str(",\"sender\":");
    push_string(out, pdu.sender().as_str());
    if let Some(state_key) = pdu.state_key() {
        out.push_str(",\"state_key\":");
        push_string(out, state_key);
    }
    out.push_str(",\"type\":");
    push_string(out, pdu.kind());
    if let Ok(unsigned) = serde_json::to_string(unsigned)
        && unsigned != "{}"
    {
        out.push_str(",\"unsigned\":");
        out.push_str(&unsigned);
    }
    out.push('}');
}

/// The content's text with `redacts` as its first field.
fn push_content_with_redacts(out: &mut String, content: &str, target: &EventId) {
    out.push_str("{\"redacts\":");
    push_string(out, target.as_str());
    // INVARIANT: content is canonical, so it begins with `{` and is `{}` when empty.
    let rest = content.strip_prefix('{').unwrap_or("}");
    if rest != "}" {
        out.push(',');
    }
    out.push_str(rest);
}

fn push_string(out: &mut String, text: &str) {
    out.push_str(&serde_json::Value::from(text).to_string());
}

fn raw(json: String) -> Box<RawValue> {
    // INVARIANT: every piece is JSON, so the fallback is never taken.
    RawValue::from_string(json).unwrap_or_else(|_invalid| RawValue::NULL.to_owned())
}

//! Events as clients see them, spliced from the stored bytes.
//!
//! Spec: <https://spec.matrix.org/v1.19/client-server-api/#room-event-format>.

use ruma::{EventId, OwnedEventId, OwnedUserId, RoomId};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::{pdu::Pdu, raw::known_json};

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

impl Unsigned {
    /// Whether there is nothing but age, transaction id and membership.
    fn is_short(&self) -> bool {
        let Self {
            age: _,
            transaction_id: _,
            membership: _,
            prev_content,
            prev_sender,
            replaces_state,
            redacted_by,
            redacted_because,
            relations,
            invite_room_state,
            knock_room_state,
        } = self;
        prev_content.is_none()
            && prev_sender.is_none()
            && replaces_state.is_none()
            && redacted_by.is_none()
            && redacted_because.is_none()
            && relations.is_none()
            && invite_room_state.is_none()
            && knock_room_state.is_none()
    }
}

/// The event in client form, with `room_id`, as `/messages`, `/event`, `/context` and pushes give it.
pub fn client_event(pdu: &Pdu, unsigned: &Unsigned) -> Box<RawValue> {
    let mut out = String::with_capacity(pdu.content_str().len() + 400);
    write_client_event(&mut out, pdu, unsigned, Some(pdu.room_id()));
    known_json(out)
}

/// The event in client form, without `room_id`, as `/sync` gives it.
pub fn sync_event(pdu: &Pdu, unsigned: &Unsigned) -> Box<RawValue> {
    let mut out = String::with_capacity(pdu.content_str().len() + 300);
    write_client_event(&mut out, pdu, unsigned, None);
    known_json(out)
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
    known_json(out)
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
    push_number(out, pdu.origin_server_ts_ms());
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
    push_unsigned(out, unsigned);
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

/// `unsigned`, unless it is empty.
fn push_unsigned(out: &mut String, unsigned: &Unsigned) {
    if !unsigned.is_short() {
        if let Ok(unsigned) = serde_json::to_string(unsigned)
            && unsigned != "{}"
        {
            out.push_str(",\"unsigned\":");
            out.push_str(&unsigned);
        }
        return;
    }
    // What nearly every event has, without the detour: a page holds a hundred of them.
    let before = out.len();
    let mut lead = ",\"unsigned\":{";
    if let Some(age) = unsigned.age {
        out.push_str(lead);
        out.push_str("\"age\":");
        if age < 0 {
            out.push('-');
        }
        push_number(out, age.unsigned_abs());
        lead = ",";
    }
    if let Some(transaction_id) = &unsigned.transaction_id {
        out.push_str(lead);
        out.push_str("\"transaction_id\":");
        push_string(out, transaction_id);
        lead = ",";
    }
    if let Some(membership) = unsigned.membership {
        out.push_str(lead);
        out.push_str("\"membership\":");
        push_string(out, membership);
    }
    if out.len() > before {
        out.push('}');
    }
}

fn push_number(out: &mut String, mut number: u64) {
    let mut digits = [b'0'; 20];
    let mut used = 0_usize;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + u8::try_from(number % 10).unwrap_or(0);
        number /= 10;
        used = used.saturating_add(1);
        if number == 0 {
            break;
        }
    }
    let shown = digits.get(digits.len().saturating_sub(used)..).unwrap_or_default();
    out.push_str(std::str::from_utf8(shown).unwrap_or("0"));
}

fn push_string(out: &mut String, text: &str) {
    // Identifiers and types rarely hold anything that JSON escapes.
    if text.bytes().all(|byte| byte >= 0x20 && byte != b'"' && byte != b'\\') {
        out.push('"');
        out.push_str(text);
        out.push('"');
    } else {
        out.push_str(&serde_json::Value::from(text).to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_short_way_prints_what_serde_prints() {
        for age in [None, Some(0), Some(7), Some(-12), Some(i64::MAX), Some(i64::MIN)] {
            for transaction_id in [None, Some("m1"), Some("a\"b\\c\n\u{1}é")] {
                for membership in [None, Some("join")] {
                    let transaction_id = transaction_id.map(str::to_owned);
                    let unsigned = Unsigned { age, transaction_id, membership, ..Unsigned::default() };
                    let mut out = String::new();
                    push_unsigned(&mut out, &unsigned);
                    let plain = serde_json::to_string(&unsigned).unwrap();
                    let expected = if plain == "{}" { String::new() } else { format!(",\"unsigned\":{plain}") };
                    assert_eq!(out, expected);
                }
            }
        }
    }

    #[test]
    fn numbers_and_strings_are_printed_as_json() {
        for number in [0, 9, 10, 1_700_000_000_000, u64::MAX] {
            let mut out = String::new();
            push_number(&mut out, number);
            assert_eq!(out, number.to_string());
        }
        for text in ["", "plain", "quote\"", "back\\slash", "tab\t", "\u{7f}", "ü🏥", "\u{0}"] {
            let mut out = String::new();
            push_string(&mut out, text);
            assert_eq!(out, serde_json::to_string(text).unwrap());
        }
    }
}

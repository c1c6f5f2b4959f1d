//! What an event says beside what it does: in the clear or not, and as much as anybody needs or more.
//!
//! Where encryption is required nobody may write in the clear. Two kinds of messages are not encrypted by any client and
//! let through: reactions, and the steps by which two devices verify each other. Their form is checked field by field, so
//! that no other words travel in them. Member events and redactions do something; the words they may carry are a `reason`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::credential::CREDENTIAL_FIELD;
use crate::room_policy::MEGOLM;

/// The longest identifier, bytes.
const MAX_ID_BYTES: usize = 255;
/// The longest reaction, bytes.
const MAX_REACTION_BYTES: usize = 64;
/// The longest value in a step of a verification, bytes.
const MAX_STEP_BYTES: usize = 128;
/// The most values in a list or map of a step of a verification.
const MAX_STEP_VALUES: usize = 32;
/// The longest reason, bytes.
const MAX_REASON_BYTES: usize = 1024;
/// The longest name that a member shows in a room, bytes.
const MAX_NAME_BYTES: usize = 256;
/// The longest address of a picture, bytes.
const MAX_URL_BYTES: usize = 1024;

/// In what form a message is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// Encrypted end to end with Megolm.
    Encrypted,
    /// A reaction, or a step of a verification, and nothing beside.
    Sign,
    /// It would be one of these, and nothing is left of its content: it was redacted on its way.
    Empty,
    /// Anything else: what it says can be read by every server.
    Clear,
}

impl Form {
    /// The form of a message of this type with this content.
    #[must_use]
    pub fn of(event_type: &str, content: &Value) -> Self {
        let Value::Object(content) = content else { return Self::Clear };
        let step = event_type.strip_prefix("m.key.verification.");
        if content.is_empty() && (matches!(event_type, "m.room.encrypted" | "m.reaction") || step.is_some()) {
            return Self::Empty;
        }
        match (event_type, step) {
            ("m.room.encrypted", _) if is_encrypted(content) => Self::Encrypted,
            ("m.reaction", _) if is_reaction(content) => Self::Sign,
            (_, Some(step)) if is_step(step, content) => Self::Sign,
            _ => Self::Clear,
        }
    }
}

/// Words of its own that a member event or a redaction carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Words {
    /// A `reason`, and nothing else.
    Reason,
    /// Something else, or something too long.
    More,
}

impl Words {
    /// The words of an event of this type with this content; `None` if it has none, or is neither a member event nor a
    /// redaction.
    #[must_use]
    pub fn of(event_type: &str, is_state: bool, content: &Value) -> Option<Self> {
        let Value::Object(content) = content else { return None };
        let needed: fn(&str, &Value) -> bool = match (event_type, is_state) {
            ("m.room.redaction", false) => |field, value| field == "redacts" && is_short(value, MAX_ID_BYTES),
            ("m.room.member", true) => match content.get("membership").and_then(Value::as_str) {
                Some("leave" | "ban") => |field, value| field == "membership" && is_short(value, MAX_ID_BYTES),
                _ => is_of_a_member,
            },
            _ => return None,
        };
        let said = content.iter().filter(|(field, value)| !says_nothing(value) && !needed(field, value));
        said.map(
            |(field, value)| {
                if field == "reason" && is_short(value, MAX_REASON_BYTES) { Self::Reason } else { Self::More }
            },
        )
        .max()
    }
}

fn is_of_a_member(field: &str, value: &Value) -> bool {
    match field {
        "membership" | "join_authorised_via_users_server" => is_short(value, MAX_ID_BYTES),
        "displayname" => is_short(value, MAX_NAME_BYTES),
        "avatar_url" => is_short(value, MAX_URL_BYTES),
        "is_direct" => value.is_boolean(),
        "third_party_invite" | CREDENTIAL_FIELD => true,
        _ => false,
    }
}

fn says_nothing(value: &Value) -> bool {
    value.is_null() || value.as_str() == Some("")
}

fn is_short(value: &Value, max_bytes: usize) -> bool {
    value.as_str().is_some_and(|text| text.len() <= max_bytes)
}

/// Short, and in characters of which no sentence can be made.
fn is_word(value: &Value, max_bytes: usize) -> bool {
    value.as_str().is_some_and(|text| text.len() <= max_bytes && text.bytes().all(|byte| byte.is_ascii_graphic()))
}

/// SPEC: Client-Server API, "m.room.encrypted", for `m.megolm.v1.aes-sha2`.
fn is_encrypted(content: &Map<String, Value>) -> bool {
    let sealed = content.get("algorithm").and_then(Value::as_str) == Some(MEGOLM)
        && content.get("ciphertext").is_some_and(is_base64);
    sealed
        && content.iter().all(|(field, value)| match field.as_str() {
            "algorithm" | "ciphertext" => true,
            "device_id" | "sender_key" | "session_id" => is_short(value, MAX_ID_BYTES),
            "m.relates_to" => is_relation(value),
            _ => false,
        })
}

fn is_base64(value: &Value) -> bool {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=' | b'-' | b'_');
    value.as_str().is_some_and(|text| !text.is_empty() && text.bytes().all(letter))
}

/// Which event it is about, and how.
fn is_relation(value: &Value) -> bool {
    let Value::Object(relation) = value else { return false };
    relation.iter().all(|(field, value)| match field.as_str() {
        "rel_type" | "event_id" => is_word(value, MAX_ID_BYTES),
        "key" => is_short(value, MAX_REACTION_BYTES),
        "is_falling_back" => value.is_boolean(),
        "m.in_reply_to" => value
            .as_object()
            .is_some_and(|reply| reply.iter().all(|(field, id)| field == "event_id" && is_word(id, MAX_ID_BYTES))),
        _ => false,
    })
}

/// SPEC: Client-Server API, "m.reaction".
fn is_reaction(content: &Map<String, Value>) -> bool {
    let Some(Value::Object(relation)) = content.get("m.relates_to") else { return false };
    content.len() == 1
        && relation.len() == 3
        && relation.get("rel_type").and_then(Value::as_str) == Some("m.annotation")
        && relation.get("event_id").is_some_and(|id| is_word(id, MAX_ID_BYTES))
        && relation.get("key").is_some_and(|key| is_short(key, MAX_REACTION_BYTES))
}

/// SPEC: Client-Server API, "Key verification framework" and what builds on it, within a room.
fn is_step(step: &str, content: &Map<String, Value>) -> bool {
    let fields: &[&str] = match step {
        "ready" => &["from_device", "methods"],
        "start" => &[
            "from_device",
            "method",
            "next_method",
            "key_agreement_protocols",
            "hashes",
            "message_authentication_codes",
            "short_authentication_string",
            "secret",
        ],
        "accept" => &[
            "method",
            "key_agreement_protocol",
            "hash",
            "message_authentication_code",
            "short_authentication_string",
            "commitment",
        ],
        "key" => &["key"],
        "mac" => &["mac", "keys"],
        "cancel" => &["code", "reason"],
        "done" => &[],
        _ => return false,
    };
    content.iter().all(|(field, value)| match field.as_str() {
        "m.relates_to" => is_reference(value),
        // A sentence of the client's, not of its user.
        "reason" if step == "cancel" => is_short(value, MAX_STEP_BYTES),
        field => fields.contains(&field) && is_step_value(value),
    })
}

fn is_reference(value: &Value) -> bool {
    is_relation(value) && value.get("rel_type").and_then(Value::as_str) == Some("m.reference")
}

fn is_step_value(value: &Value) -> bool {
    match value {
        Value::Array(values) => {
            values.len() <= MAX_STEP_VALUES && values.iter().all(|value| is_word(value, MAX_STEP_BYTES))
        }
        Value::Object(values) => {
            values.len() <= MAX_STEP_VALUES
                && values.iter().all(|(name, value)| {
                    name.len() <= MAX_STEP_BYTES
                        && name.bytes().all(|byte| byte.is_ascii_graphic())
                        && is_word(value, MAX_STEP_BYTES)
                })
        }
        value => is_word(value, MAX_STEP_BYTES),
    }
}

//! From an event to the question about it.

use serde_json::Value;

use crate::facts::{Fact, RoomEncryption, Unavailable, lifetime_of};
use crate::request::{Action, RedactTarget, StateChange, StateEffect};
use crate::room_policy::{ROOM_POLICY_TYPE, RoomPolicy};
use crate::wording::{Form, Words};

impl Action {
    /// The act that an event stands for: total, so that whatever arrives can be asked about.
    ///
    /// `redacted` says what a redaction is aimed at, and is looked at for redactions alone. For an event from
    /// outside wrap the answer: `Action::FederatedEvent(Box::new(act))`.
    #[must_use]
    pub fn of_event(
        sender: &str,
        event_type: &str,
        state_key: Option<&str>,
        content: &Value,
        redacted: RedactTarget,
    ) -> Self {
        let act = Self::without_words(sender, event_type, state_key, content, redacted);
        match Words::of(event_type, state_key.is_some(), content) {
            Some(words) => Self::WithWords { words, act: Box::new(act) },
            None => act,
        }
    }

    fn without_words(
        sender: &str,
        event_type: &str,
        state_key: Option<&str>,
        content: &Value,
        redacted: RedactTarget,
    ) -> Self {
        let Some(state_key) = state_key else {
            if event_type == "m.room.redaction" {
                return Self::Redact(redacted);
            }
            return Self::Send { event_type: event_type.to_owned(), form: Form::of(event_type, content) };
        };
        match event_type {
            "m.room.member" => of_membership(sender, state_key, content),
            "m.room.create" => {
                Self::CreateRoom { federates: content.get("m.federate").and_then(Value::as_bool).unwrap_or(true) }
            }
            _ => Self::SendState(StateChange::of(event_type, state_key, content)),
        }
    }

    /// The same act, arrived from another server.
    #[must_use]
    pub fn from_outside(self) -> Self {
        Self::FederatedEvent(Box::new(self))
    }
}

impl StateChange {
    /// What a state event other than a membership would do.
    #[must_use]
    pub fn of(event_type: &str, state_key: &str, content: &Value) -> Self {
        let effect = match event_type {
            // SPEC: Client-Server API, "m.room.third_party_invite": without content it is taken back.
            "m.room.third_party_invite" if content.as_object().is_some_and(serde_json::Map::is_empty) => {
                StateEffect::Other
            }
            "m.room.third_party_invite" => StateEffect::AddressInvite,
            _ if state_key.is_empty() => effect_of(event_type, content),
            _ => StateEffect::Other,
        };
        Self { event_type: event_type.to_owned(), effect }
    }
}

fn of_membership(sender: &str, state_key: &str, content: &Value) -> Action {
    let own = sender == state_key;
    match content.get("membership").and_then(Value::as_str) {
        Some("invite") => Action::Invite { invitee: state_key.to_owned() },
        Some("join") => Action::Join,
        Some("knock") => Action::Knock,
        Some("leave") if own => Action::Leave,
        Some("leave" | "ban") => Action::Remove { target: state_key.to_owned() },
        // No known membership: the authorisation rules refuse it; should they not, it counts as coming in.
        _ => Action::Join,
    }
}

fn effect_of(event_type: &str, content: &Value) -> StateEffect {
    let text = |field: &str| match content.get(field) {
        Some(Value::String(text)) => Fact::Known(text.clone()),
        Some(_) => Fact::Unavailable(Unavailable::Malformed),
        None => Fact::Absent,
    };
    match event_type {
        ROOM_POLICY_TYPE => StateEffect::RoomPolicy(match RoomPolicy::parse(content) {
            Ok(policy) => Fact::Known(Box::new(policy)),
            Err(_) => Fact::Unavailable(Unavailable::Malformed),
        }),
        "m.room.encryption" => StateEffect::Encryption(match RoomEncryption::read(content) {
            Some(encryption) => Fact::Known(encryption),
            None => Fact::Unavailable(Unavailable::Malformed),
        }),
        "m.room.retention" => StateEffect::Retention(lifetime_of(content)),
        "m.room.join_rules" => StateEffect::JoinRule(text("join_rule")),
        "m.room.history_visibility" => StateEffect::HistoryVisibility(text("history_visibility")),
        "m.room.guest_access" => {
            StateEffect::GuestAccess(content.get("guest_access").and_then(Value::as_str) == Some("can_join"))
        }
        "m.room.server_acl" | "m.room.policy" | "m.room.tombstone" => StateEffect::Guarded,
        _ => StateEffect::Other,
    }
}

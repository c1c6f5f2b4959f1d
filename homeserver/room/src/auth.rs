//! The authorisation rules, on `ruma_state_res`, with answers that say which rule refused.
//!
//! Spec: <https://spec.matrix.org/v1.19/server-server-api/#authorisation-rules>, `rooms/*/#authorisation-rules`.

use std::cell::Cell;

use ruma::{
    EventId,
    state_res::{check_state_dependent_auth_rules, check_state_independent_auth_rules},
};
use serde::Deserialize;
use thiserror::Error;

use crate::{pdu::Pdu, power_levels::PowerLevels};

/// An event is not allowed (`M_FORBIDDEN` for our own; rejected or soft-failed for others').
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{rule}: {sentence}")]
pub struct AuthError {
    /// The family of rules that refused, such as `member.invite` or `power_levels`; stable, for logs and counters.
    pub rule: &'static str,
    /// What is wrong, in a sentence that quotes no content and names nobody; it may name events.
    pub sentence: String,
}

#[derive(Deserialize)]
struct CreateContent {
    room_version: Option<String>,
}

/// What is known of an event that another names as its authority.
#[derive(Debug, Clone)]
pub enum AuthEvent {
    /// It was accepted.
    Accepted(Pdu),
    /// It was rejected, and so is whoever names it.
    Rejected,
}

impl From<Pdu> for AuthEvent {
    fn from(pdu: Pdu) -> Self {
        Self::Accepted(pdu)
    }
}

/// The event passes the rules that need only its auth events: once per event, on receipt.
///
/// `find` looks up an auth event by id; in version 12 it is asked for the create event too. `None` means unknown.
///
/// # Errors
/// [`AuthError`]: the event is rejected.
pub fn check_state_independent(event: &Pdu, find: impl Fn(&EventId) -> Option<AuthEvent>) -> Result<(), AuthError> {
    check_create(event)?;
    let rejected = Cell::new(false);
    let lookup = |id: &EventId| match find(id)? {
        AuthEvent::Accepted(pdu) => Some(pdu),
        AuthEvent::Rejected => {
            rejected.set(true);
            None
        }
    };
    let rules = &event.room_version().rules.authorization;
    check_state_independent_auth_rules(rules, event, lookup).map_err(|sentence| {
        if rejected.get() {
            return AuthError { rule: "auth_events", sentence: "an auth event was rejected".to_owned() };
        }
        let rule = if event.kind() == "m.room.create" { "create" } else { "auth_events" };
        AuthError { rule, sentence: presentable(sentence) }
    })?;
    if !rules.room_create_event_id_as_room_id || event.kind() == "m.room.create" {
        return Ok(());
    }
    // The implied create event must be one: a hash of anything else founds no room.
    let create = crate::pdu::create_event_id_of(event.room_id()).and_then(|id| find(&id));
    match create {
        Some(AuthEvent::Accepted(create)) if create.is_state_of("m.room.create", "") => Ok(()),
        _ => Err(AuthError { rule: "auth_events", sentence: "the room id names no create event".to_owned() }),
    }
}

/// A create event founds a room of the very version under whose rules it was read.
fn check_create(event: &Pdu) -> Result<(), AuthError> {
    if event.kind() != "m.room.create" {
        return Ok(());
    }
    let refuse = |sentence: &str| Err(AuthError { rule: "create", sentence: sentence.to_owned() });
    if event.state_key() != Some("") {
        return refuse("a create event needs an empty state key");
    }
    let content: CreateContent = match event.content_as() {
        Ok(content) => content,
        Err(_malformed) => return refuse("the create event's room version is malformed"),
    };
    if content.room_version.as_deref().unwrap_or("1") != event.room_version().as_str() {
        return refuse("the create event is of another room version");
    }
    Ok(())
}

/// The event is allowed by this state: that of its auth events, that before it, or the current one.
///
/// `state` answers by type and state key, and must leave out rejected events. In version 12 it is asked for the
/// create event like any other.
///
/// # Errors
/// [`AuthError`], with the family of rules that refused.
pub fn check_auth(event: &Pdu, state: impl Fn(&str, &str) -> Option<Pdu>) -> Result<(), AuthError> {
    if let Some(verdict) = check_plain(event, &state) {
        return verdict;
    }
    let rules = &event.room_version().rules.authorization;
    check_state_dependent_auth_rules(rules, event, |kind, key| state(&kind.to_string(), key))
        .map_err(|sentence| AuthError { rule: rule_of(event), sentence: presentable(sentence) })
}

/// The verdict on events of which the rules ask only membership and power, from what is read once per state event.
///
/// Almost all events are such, and a room of many may have a long list of users. `None` leaves the event to the full
/// rules: those with rules of their own, and rooms whose create or power levels event is not entirely well-formed.
fn check_plain(event: &Pdu, state: impl Fn(&str, &str) -> Option<Pdu>) -> Option<Result<(), AuthError>> {
    let rules = &event.room_version().rules.authorization;
    let plain = match event.kind() {
        "m.room.create" | "m.room.member" | "m.room.power_levels" | "m.room.third_party_invite" => false,
        "m.room.aliases" => !rules.special_case_room_aliases,
        "m.room.redaction" => !rules.special_case_room_redaction,
        _ => true,
    };
    let create = state("m.room.create", "").filter(|_| plain)?;
    let power_levels = state("m.room.power_levels", "");
    let readable =
        create.founding().well_formed && power_levels.as_ref().is_none_or(|event| event.levels().well_formed);
    if !readable {
        return None;
    }
    let sender = event.sender();
    let refuse = |sentence: &str| Some(Err(AuthError { rule: "send", sentence: sentence.to_owned() }));
    if !create.founding().federate && create.sender().server_name() != sender.server_name() {
        return refuse("the room is not federated and the sender is of another server than its creator");
    }
    let member = state("m.room.member", sender.as_str());
    if member.as_ref().and_then(Pdu::membership) != Some("join") {
        return refuse("the sender is not joined");
    }
    let levels = PowerLevels::from(&create, power_levels.as_ref());
    if !levels.can_send(sender, event.kind(), event.is_state()) {
        return refuse("the sender has not the power to send events of this type");
    }
    if event.state_key().is_some_and(|key| key.starts_with('@') && key != sender.as_str()) {
        return refuse("the state key is the id of another user");
    }
    Some(Ok(()))
}

/// The family of rules that governs an event.
fn rule_of(event: &Pdu) -> &'static str {
    match event.kind() {
        "m.room.member" => match event.membership() {
            Some("join") => "member.join",
            Some("invite") => "member.invite",
            Some("leave") => "member.leave",
            Some("ban") => "member.ban",
            Some("knock") => "member.knock",
            _ => "member",
        },
        "m.room.power_levels" => "power_levels",
        "m.room.third_party_invite" => "third_party_invite",
        "m.room.aliases" => "aliases",
        "m.room.redaction" => "redaction",
        _ => "send",
    }
}

/// The sentence without what it quotes from events: values, state keys and other people's names.
fn presentable(sentence: String) -> String {
    let end = [": ", ", got ", " for (", " with ("].iter().filter_map(|cut| sentence.find(cut)).min();
    let sentence = end.and_then(|end| sentence.get(..end)).unwrap_or(&sentence);
    let pieces = sentence.split('`').enumerate();
    pieces.fold(String::new(), |mut out, (index, piece)| {
        match index % 2 {
            0 => out.push_str(piece),
            _ if piece.starts_with('@') => out.push_str("a user"),
            _ => {
                out.push('`');
                out.push_str(piece);
                out.push('`');
            }
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::presentable;

    #[test]
    fn sentences_lose_what_they_quote() {
        let cases = [
            (
                "sender does not have enough power to change `@p123:x`'s power level",
                "sender does not have enough power to change a user's power level",
            ),
            ("duplicate auth event $id for (m.room.member, @p:x) pair", "duplicate auth event $id"),
            ("unexpected format of `users`: invalid type: string \"x\"", "unexpected format of `users`"),
            (
                "unexpected format of `token`, expected string, got \"x\"",
                "unexpected format of `token`, expected string",
            ),
            ("cannot invite user that is banned", "cannot invite user that is banned"),
        ];
        for (sentence, expected) in cases {
            assert_eq!(presentable(sentence.to_owned()), expected);
        }
    }
}

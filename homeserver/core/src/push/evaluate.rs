//! What a user's rules say of an event. Pure.

use std::sync::Arc;

use matron_room::{Pdu, PowerLevels};
use ruma::{OwnedUserId, UserId};
use serde_json::{Map, Value, json};

use super::{
    compile::{Comparison, CompiledRules, Condition},
    pattern::Pattern,
};

/// What happens to an event.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Actions {
    /// It is counted and pushed.
    pub notify: bool,
    /// It stands out.
    pub highlight: bool,
    /// All tweaks, as push gateways are told.
    pub tweaks: Map<String, Value>,
    /// As the rule has them, without historical ones.
    pub raw: Vec<Value>,
}

impl Actions {
    pub(super) fn new(raw: &[Value]) -> Self {
        let raw: Vec<Value> = raw
            .iter()
            .filter(|action| !matches!(action.as_str(), Some("dont_notify" | "coalesce")))
            .cloned()
            .collect();
        let mut actions = Self { notify: raw.iter().any(|action| action == "notify"), ..Self::default() };
        for action in &raw {
            let Some(name) = action.get("set_tweak").and_then(Value::as_str) else { continue };
            let value = action.get("value").cloned().unwrap_or(Value::Bool(true));
            if name == "highlight" {
                actions.highlight = value != Value::Bool(false);
            }
            actions.tweaks.insert(name.to_owned(), value);
        }
        actions.raw = raw;
        actions
    }
}

/// An event, read once for all users.
#[derive(Clone, Debug)]
pub struct EventView {
    value: Value,
    sender: OwnedUserId,
}

impl EventView {
    /// Reads the event.
    #[must_use]
    pub fn new(pdu: &Pdu) -> Self {
        let mut value = json!({
            "type": pdu.kind(),
            "sender": pdu.sender(),
            "room_id": pdu.room_id(),
            "event_id": pdu.event_id(),
            "content": pdu.content_value(),
        });
        if let (Some(key), Some(value)) = (pdu.state_key(), value.as_object_mut()) {
            value.insert("state_key".to_owned(), key.into());
        }
        Self { value, sender: pdu.sender().to_owned() }
    }

    fn find(&self, path: &[String]) -> Option<&Value> {
        path.iter().try_fold(&self.value, |value, part| value.as_object()?.get(part))
    }
}

/// What rules ask of the room and the user.
#[derive(Clone, Debug, Default)]
pub struct Context {
    /// How many are joined.
    pub member_count: u64,
    /// Who may notify all.
    pub levels: Option<Arc<PowerLevels>>,
    /// The user's name, for rules that look for it.
    pub display_name: Option<String>,
}

/// The actions of the first rule that matches; none for the user's own events.
#[must_use]
pub fn evaluate(rules: &CompiledRules, user: &UserId, event: &EventView, context: &Context) -> Option<Arc<Actions>> {
    if event.sender == user {
        return None;
    }
    rules
        .rules
        .iter()
        .find(|rule| rule.conditions.iter().all(|condition| holds(condition, event, context)))
        .map(|rule| Arc::clone(&rule.actions))
}

fn holds(condition: &Condition, event: &EventView, context: &Context) -> bool {
    match condition {
        Condition::Match { path, pattern } => {
            event.find(path).and_then(Value::as_str).is_some_and(|text| pattern.matches(text))
        }
        Condition::Is { path, value } => event.find(path) == Some(value),
        Condition::Contains { path, value } => {
            event.find(path).and_then(Value::as_array).is_some_and(|list| list.contains(value))
        }
        Condition::DisplayName => {
            let body = event.value.get("content").and_then(|content| content.get("body")).and_then(Value::as_str);
            let name = context.display_name.as_deref().filter(|name| !name.is_empty());
            // The name is text, not a glob: wildcards in it stand for themselves.
            body.zip(name).is_some_and(|(body, name)| contains_words(body, name))
        }
        Condition::MemberCount { comparison, count } => match comparison {
            Comparison::Equal => context.member_count == *count,
            Comparison::Less => context.member_count < *count,
            Comparison::LessOrEqual => context.member_count <= *count,
            Comparison::Greater => context.member_count > *count,
            Comparison::GreaterOrEqual => context.member_count >= *count,
        },
        Condition::SenderMayNotify { key } => {
            context.levels.as_ref().is_some_and(|levels| levels.can_notify(&event.sender, key))
        }
        Condition::Never => false,
    }
}

fn contains_words(body: &str, name: &str) -> bool {
    if name.contains(['*', '?']) {
        let (body, name) = (body.to_lowercase(), name.to_lowercase());
        return body.contains(&name);
    }
    Pattern::words(name).matches(body)
}

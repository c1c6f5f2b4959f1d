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
        let raw: Vec<Value> =
            raw.iter().filter(|action| !matches!(action.as_str(), Some("dont_notify" | "coalesce"))).cloned().collect();
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
    /// The user's name in the room, for rules that look for it.
    pub display_name: Option<String>,
    /// Whether the user subscribed to the thread that the event is in, for rules that ask; `None`: it is in none.
    pub subscribed: Option<bool>,
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
        Condition::Thread { subscribed } => context.subscribed == Some(*subscribed),
        Condition::NoMentions => event.value.get("content").is_none_or(|content| content.get("m.mentions").is_none()),
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

#[cfg(test)]
mod tests {
    use ruma::{OwnedUserId, user_id};
    use serde_json::{Value, json};

    use super::{Actions, Context, EventView, evaluate};
    use crate::{
        Settings,
        push::{CompiledRules, Rule, Ruleset, defaults::default_rules},
    };

    fn event(mut value: Value) -> EventView {
        let sender: OwnedUserId = user_id!("@bob:us.example").to_owned();
        value["sender"] = json!(sender);
        value["room_id"] = json!("!r:us.example");
        EventView { value, sender }
    }

    fn message(content: Value) -> EventView {
        event(json!({ "type": "m.room.message", "content": content }))
    }

    fn own(conditions: Value) -> Ruleset {
        let conditions = conditions.as_array().cloned();
        let rule = Rule {
            rule_id: "own".to_owned(),
            default: false,
            enabled: true,
            actions: vec![json!("notify")],
            conditions,
            pattern: None,
        };
        Ruleset { overrides: vec![rule], ..Ruleset::default() }
    }

    fn matches(rules: &Ruleset, event: &EventView, context: &Context) -> bool {
        evaluate(&CompiledRules::new(rules), user_id!("@alice:us.example"), event, context).is_some()
    }

    fn default_actions(event: &EventView, member_count: u64) -> Option<Actions> {
        let alice = user_id!("@alice:us.example");
        let rules = CompiledRules::new(&default_rules(alice, &Settings::default()));
        let context = Context { member_count, ..Context::default() };
        evaluate(&rules, alice, event, &context).map(|actions| (*actions).clone())
    }

    #[test]
    fn the_default_rules_tell_mentions_notices_and_edits_apart() {
        let plain = message(json!({ "msgtype": "m.text", "body": "x" }));
        let actions = default_actions(&plain, 3).unwrap();
        assert!(actions.notify && !actions.highlight && actions.tweaks.is_empty());
        assert_eq!(default_actions(&plain, 2).unwrap().tweaks["sound"], "default");
        let mention = message(json!({ "body": "x", "m.mentions": { "user_ids": ["@alice:us.example"] } }));
        assert!(default_actions(&mention, 3).unwrap().highlight);
        let notice = message(json!({ "msgtype": "m.notice", "body": "x" }));
        assert!(!default_actions(&notice, 2).unwrap().notify);
        let edit = message(json!({ "body": "x", "m.relates_to": { "rel_type": "m.replace" } }));
        assert!(!default_actions(&edit, 2).unwrap().notify);
        let room = message(json!({ "body": "x", "m.mentions": { "room": true } }));
        assert!(!default_actions(&room, 3).unwrap().highlight, "without power nobody is alarmed");
    }

    #[test]
    fn names_in_the_text_alert_only_where_the_operator_wants_it() {
        let alice = user_id!("@alice:us.example");
        let context = Context { display_name: Some("Dr. A".to_owned()), ..Context::default() };
        let is_loud = |legacy: bool, content: Value| {
            let settings = Settings { push_legacy_mentions: legacy, ..Settings::default() };
            let rules = CompiledRules::new(&default_rules(alice, &settings));
            evaluate(&rules, alice, &message(content), &context).is_some_and(|actions| actions.highlight)
        };
        for body in ["ask Alice", "ask dr. a!"] {
            assert!(is_loud(true, json!({ "body": body })));
            assert!(!is_loud(false, json!({ "body": body })));
            assert!(!is_loud(true, json!({ "body": body, "m.mentions": {} })));
        }
        assert!(!is_loud(true, json!({ "body": "malice" })));
    }

    #[test]
    fn an_invitation_for_another_is_only_a_member_event() {
        let invite = |target: &str| {
            let content = json!({ "membership": "invite" });
            event(json!({ "type": "m.room.member", "state_key": target, "content": content }))
        };
        assert!(default_actions(&invite("@alice:us.example"), 2).unwrap().notify);
        assert!(!default_actions(&invite("@carol:us.example"), 2).unwrap().notify);
    }

    #[test]
    fn members_are_compared_as_the_rule_says() {
        let rooms_of = |is: &str| {
            let rules = own(json!([{ "kind": "room_member_count", "is": is }]));
            (1..=4)
                .filter(|count| {
                    matches(&rules, &message(json!({})), &Context { member_count: *count, ..Context::default() })
                })
                .collect::<Vec<u64>>()
        };
        assert_eq!(rooms_of("2"), [2]);
        assert_eq!(rooms_of("==2"), [2]);
        assert_eq!(rooms_of("<2"), [1]);
        assert_eq!(rooms_of("<=2"), [1, 2]);
        assert_eq!(rooms_of(">2"), [3, 4]);
        assert_eq!(rooms_of(">=2"), [2, 3, 4]);
        for wrong in ["two", "", "==", "+2", "2.0", " 2", "=2"] {
            assert_eq!(rooms_of(wrong), [0_u64; 0], "{wrong}");
        }
    }

    #[test]
    fn unknown_conditions_and_compound_values_never_match() {
        let any = message(json!({ "list": [1, "a", [2]], "flag": true, "none": null }));
        let holds = |condition: Value| matches(&own(json!([condition])), &any, &Context::default());
        assert!(!holds(json!({ "kind": "moon_phase" })));
        assert!(!holds(json!({ "kind": "event_match", "key": "content.flag", "pattern": "*" })));
        assert!(!holds(json!({ "kind": "event_match", "key": "content.absent", "pattern": "*" })));
        assert!(holds(json!({ "kind": "event_property_is", "key": "content.flag", "value": true })));
        assert!(holds(json!({ "kind": "event_property_is", "key": "content.none", "value": null })));
        assert!(!holds(json!({ "kind": "event_property_is", "key": "content.absent", "value": null })));
        assert!(!holds(json!({ "kind": "event_property_is", "key": "content.list", "value": [1, "a", [2]] })));
        assert!(holds(json!({ "kind": "event_property_contains", "key": "content.list", "value": "a" })));
        assert!(!holds(json!({ "kind": "event_property_contains", "key": "content.list", "value": [2] })));
        assert!(matches(&own(json!([])), &any, &Context::default()));
    }

    #[test]
    fn values_are_compared_by_kind_and_only_if_canonical() {
        let event = message(json!({ "one": 1, "large": 9_007_199_254_740_992_i64, "list": ["1", true, null] }));
        let holds = |kind: &str, key: &str, value: Value| {
            let condition = json!({ "kind": kind, "key": key, "value": value });
            matches(&own(json!([condition])), &event, &Context::default())
        };
        assert!(holds("event_property_is", "content.one", json!(1)));
        for other in [json!("1"), json!(true), json!(1.0), json!(null)] {
            assert!(!holds("event_property_is", "content.one", other));
        }
        assert!(!holds("event_property_is", "content.large", json!(9_007_199_254_740_992_i64)));
        assert!(!holds("event_property_is", "content", json!({})));
        assert!(holds("event_property_contains", "content.list", json!(null)));
        assert!(!holds("event_property_contains", "content.list", json!(1)));
        assert!(!holds("event_property_contains", "content.one", json!(1)));
    }

    #[test]
    fn rules_of_rooms_and_senders_are_of_these_alone() {
        let rule =
            |id: &str| vec![Rule { conditions: None, rule_id: id.to_owned(), ..own(json!([])).overrides.remove(0) }];
        let event = message(json!({}));
        let room = |id: &str| Ruleset { room: rule(id), ..Ruleset::default() };
        let sender = |id: &str| Ruleset { sender: rule(id), ..Ruleset::default() };
        assert!(matches(&room("!r:us.example"), &event, &Context::default()));
        assert!(!matches(&room("!R:us.example"), &event, &Context::default()));
        assert!(matches(&sender("@bob:us.example"), &event, &Context::default()));
        assert!(!matches(&sender("@Bob:us.example"), &event, &Context::default()));
        assert!(!matches(&sender("@*:us.example"), &event, &Context::default()));
    }

    #[test]
    fn threads_notify_those_who_follow_them_where_the_operator_wants_it() {
        let alice = user_id!("@alice:us.example");
        let settings = Settings { thread_subscriptions: true, ..Settings::default() };
        let mut rules = default_rules(alice, &settings);
        let muted = Rule {
            rule_id: "!r:us.example".to_owned(),
            conditions: None,
            actions: vec![],
            ..own(json!([])).overrides.remove(0)
        };
        rules.room.push(muted);
        let notifies = |subscribed: Option<bool>, content: Value| {
            let context = Context { member_count: 3, subscribed, ..Context::default() };
            let rules = CompiledRules::new(&rules);
            evaluate(&rules, alice, &message(content), &context).is_some_and(|actions| actions.notify)
        };
        assert!(notifies(Some(true), json!({ "body": "x" })), "although the room is muted");
        assert!(!notifies(Some(false), json!({ "body": "x" })));
        assert!(notifies(Some(false), json!({ "body": "x", "m.mentions": { "user_ids": [alice] } })));
        assert!(!notifies(None, json!({ "body": "x" })), "the room is muted");
    }

    #[test]
    fn a_display_name_is_text_and_not_a_pattern() {
        let rules = own(json!([{ "kind": "contains_display_name" }]));
        let named = |name: &str, body: &str| {
            let context = Context { display_name: Some(name.to_owned()), ..Context::default() };
            matches(&rules, &message(json!({ "body": body })), &context)
        };
        assert!(named("Alice", "hello ALICE!"));
        assert!(!named("Alice", "malice"));
        assert!(!named("A*e", "ace"));
        assert!(!named("", "anything"));
    }

    #[test]
    fn nobody_is_notified_of_what_they_said() {
        let rules = CompiledRules::new(&own(json!([])));
        let event = message(json!({}));
        assert!(evaluate(&rules, user_id!("@bob:us.example"), &event, &Context::default()).is_none());
    }
}

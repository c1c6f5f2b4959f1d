//! The server's default rules.
//!
//! SPEC: v1.19 Client-Server API, "Predefined Rules".

use ruma::UserId;
use serde_json::{Value, json};

use super::rules::{Kind, Rule, Ruleset};

/// The rule above all others, even the user's own.
pub(super) const MASTER: &str = ".m.rule.master";

fn rule(rule_id: &str, conditions: Vec<Value>, actions: Vec<Value>) -> Rule {
    Rule {
        rule_id: rule_id.to_owned(),
        default: true,
        enabled: rule_id != MASTER,
        actions,
        conditions: Some(conditions),
        pattern: None,
    }
}

fn event_match(key: &str, pattern: &str) -> Value {
    json!({ "kind": "event_match", "key": key, "pattern": pattern })
}

fn two_members() -> Value {
    json!({ "kind": "room_member_count", "is": "2" })
}

fn sound(name: &str) -> Value {
    json!({ "set_tweak": "sound", "value": name })
}

fn highlight() -> Value {
    json!({ "set_tweak": "highlight" })
}

/// The default rules of a user.
pub(super) fn default_rules(user: &UserId) -> Ruleset {
    let notify = || Value::from("notify");
    let overrides = vec![
        rule(MASTER, vec![], vec![]),
        rule(".m.rule.suppress_notices", vec![event_match("content.msgtype", "m.notice")], vec![]),
        rule(
            ".m.rule.invite_for_me",
            vec![
                event_match("type", "m.room.member"),
                event_match("content.membership", "invite"),
                event_match("state_key", user.as_str()),
            ],
            vec![notify(), sound("default")],
        ),
        rule(".m.rule.member_event", vec![event_match("type", "m.room.member")], vec![]),
        rule(
            ".m.rule.is_user_mention",
            vec![json!({ "kind": "event_property_contains", "key": "content.m\\.mentions.user_ids", "value": user })],
            vec![notify(), sound("default"), highlight()],
        ),
        rule(
            ".m.rule.is_room_mention",
            vec![
                json!({ "kind": "event_property_is", "key": "content.m\\.mentions.room", "value": true }),
                json!({ "kind": "sender_notification_permission", "key": "room" }),
            ],
            vec![notify(), highlight()],
        ),
        rule(
            ".m.rule.tombstone",
            vec![event_match("type", "m.room.tombstone"), event_match("state_key", "")],
            vec![notify(), highlight()],
        ),
        rule(".m.rule.reaction", vec![event_match("type", "m.reaction")], vec![]),
        rule(
            ".m.rule.room.server_acl",
            vec![event_match("type", "m.room.server_acl"), event_match("state_key", "")],
            vec![],
        ),
        rule(
            ".m.rule.suppress_edits",
            vec![json!({ "kind": "event_property_is", "key": "content.m\\.relates_to.rel_type", "value": "m.replace" })],
            vec![],
        ),
    ];
    let underrides = vec![
        rule(".m.rule.call", vec![event_match("type", "m.call.invite")], vec![notify(), sound("ring")]),
        rule(
            ".m.rule.encrypted_room_one_to_one",
            vec![two_members(), event_match("type", "m.room.encrypted")],
            vec![notify(), sound("default")],
        ),
        rule(
            ".m.rule.room_one_to_one",
            vec![two_members(), event_match("type", "m.room.message")],
            vec![notify(), sound("default")],
        ),
        rule(".m.rule.message", vec![event_match("type", "m.room.message")], vec![notify()]),
        rule(".m.rule.encrypted", vec![event_match("type", "m.room.encrypted")], vec![notify()]),
    ];
    Ruleset { overrides, underrides, ..Ruleset::default() }
}

/// The user's stored rules with today's default rules in their places; what the user changed of a default rule is kept.
pub(super) fn with_defaults(user: &UserId, mut stored: Ruleset) -> Ruleset {
    let mut rules = default_rules(user);
    for kind in Kind::ALL {
        let (changed, own): (Vec<Rule>, Vec<Rule>) =
            std::mem::take(stored.kind_mut(kind)).into_iter().partition(|rule| rule.rule_id.starts_with('.'));
        let defaults = rules.kind_mut(kind);
        for default in defaults.iter_mut() {
            if let Some(changed) = changed.iter().find(|rule| rule.rule_id == default.rule_id) {
                default.enabled = changed.enabled;
                default.actions.clone_from(&changed.actions);
            }
        }
        let first = usize::from(defaults.first().is_some_and(|rule| rule.rule_id == MASTER));
        let rest = defaults.split_off(first);
        defaults.extend(own);
        defaults.extend(rest);
    }
    rules
}

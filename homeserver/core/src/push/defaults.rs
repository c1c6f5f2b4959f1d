//! The server's default rules.
//!
//! SPEC: v1.19 Client-Server API, "Predefined Rules".

use ruma::UserId;
use serde_json::{Value, json};

use super::rules::{Kind, Rule, Ruleset};
use crate::Settings;

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

/// The rules that looked for mentions in the text before specification 1.17, and where they stand.
///
/// SPEC: v1.16 Client-Server API, "Predefined Rules": they do not apply to events that mark their mentions.
pub(super) const LEGACY: [&str; 3] =
    [".m.rule.contains_display_name", ".m.rule.roomnotif", ".m.rule.contains_user_name"];

fn add_legacy(rules: &mut Ruleset, user: &UserId) {
    let [by_display_name, room, by_user_name] = LEGACY;
    let notify = || Value::from("notify");
    let display_name = rule(
        by_display_name,
        vec![json!({ "kind": "contains_display_name" })],
        vec![notify(), sound("default"), highlight()],
    );
    let whole_room = rule(
        room,
        vec![event_match("content.body", "@room"), json!({ "kind": "sender_notification_permission", "key": "room" })],
        vec![notify(), highlight()],
    );
    let after = rules.overrides.iter().position(|rule| rule.rule_id == ".m.rule.tombstone").unwrap_or_default();
    rules.overrides.splice(after..after, [display_name, whole_room]);
    rules.content.push(Rule {
        conditions: None,
        pattern: Some(user.localpart().to_owned()),
        ..rule(by_user_name, vec![], vec![notify(), sound("default"), highlight()])
    });
}

/// Threads that the user did not subscribe to are silent, those that they did are not, whatever the room's rule.
// MSC: 4306.
fn thread_rules() -> Vec<Rule> {
    let condition =
        |subscribed: bool| vec![json!({ "kind": "io.element.msc4306.thread_subscription", "subscribed": subscribed })];
    let loud = vec![Value::from("notify"), sound("default")];
    vec![
        rule(".io.element.msc4306.rule.unsubscribed_thread", condition(false), vec![]),
        rule(".io.element.msc4306.rule.subscribed_thread", condition(true), loud),
    ]
}

/// The default rules of a user, with those that the operator chose beside the specification's.
pub(super) fn default_rules(user: &UserId, settings: &Settings) -> Ruleset {
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
            vec![
                json!({ "kind": "event_property_is", "key": "content.m\\.relates_to.rel_type", "value": "m.replace" }),
            ],
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
    let mut rules = Ruleset { overrides, underrides, ..Ruleset::default() };
    if settings.push_legacy_mentions {
        add_legacy(&mut rules, user);
    }
    if settings.thread_subscriptions {
        rules.postcontent = thread_rules();
    }
    rules
}

/// The user's stored rules with today's default rules in their places; what the user changed of a default rule is kept.
pub(super) fn with_defaults(user: &UserId, settings: &Settings, mut stored: Ruleset) -> Ruleset {
    let mut rules = default_rules(user, settings);
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

//! Rules, compiled once per user and change.

use std::sync::Arc;

use ruma::UserId;
use serde_json::Value;

use super::{
    defaults::LEGACY,
    evaluate::Actions,
    pattern::Pattern,
    rules::{Kind, PushRules, Rule, Ruleset},
};
use crate::{Core, Error, accounts::PUSH_RULES};

/// A condition, compiled.
#[derive(Clone, Debug)]
pub(super) enum Condition {
    Match {
        path: Vec<String>,
        pattern: Pattern,
    },
    Is {
        path: Vec<String>,
        value: Value,
    },
    Contains {
        path: Vec<String>,
        value: Value,
    },
    DisplayName,
    MemberCount {
        comparison: Comparison,
        count: u64,
    },
    SenderMayNotify {
        key: String,
    },
    // MSC: 4306.
    Thread {
        subscribed: bool,
    },
    /// The event does not mark its mentions.
    NoMentions,
    /// Not known: never holds.
    Never,
}

/// How a room's size is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Clone, Debug)]
pub(super) struct CompiledRule {
    pub(super) conditions: Vec<Condition>,
    pub(super) actions: Arc<Actions>,
}

/// The enabled rules of a user, in the order in which they are asked.
#[derive(Clone, Debug, Default)]
pub struct CompiledRules {
    pub(super) rules: Vec<CompiledRule>,
    pub(super) wants_display_name: bool,
    pub(super) wants_thread: bool,
}

impl CompiledRules {
    /// Compiles the enabled rules.
    #[must_use]
    pub fn new(rules: &Ruleset) -> Self {
        let rules: Vec<CompiledRule> = Kind::ALL
            .into_iter()
            .flat_map(|kind| rules.kind(kind).iter().filter(|rule| rule.enabled).map(move |rule| compile(kind, rule)))
            .collect();
        let wants = |is: fn(&Condition) -> bool| rules.iter().any(|rule| rule.conditions.iter().any(is));
        let wants_display_name = wants(|condition| matches!(condition, Condition::DisplayName));
        let wants_thread = wants(|condition| matches!(condition, Condition::Thread { .. }));
        Self { rules, wants_display_name, wants_thread }
    }
}

fn compile(kind: Kind, rule: &Rule) -> CompiledRule {
    let is = |key: &str| Condition::Is { path: vec![key.to_owned()], value: rule.rule_id.as_str().into() };
    let conditions = match kind {
        Kind::Override | Kind::PostContent | Kind::Underride => {
            rule.conditions.iter().flatten().map(condition).collect()
        }
        Kind::Content => vec![match &rule.pattern {
            Some(glob) => Condition::Match { path: split_path("content.body"), pattern: Pattern::words(glob) },
            None => Condition::Never,
        }],
        Kind::Room => vec![is("room_id")],
        Kind::Sender => vec![is("sender")],
    };
    let mut conditions: Vec<Condition> = conditions;
    if LEGACY.contains(&rule.rule_id.as_str()) {
        conditions.insert(0, Condition::NoMentions);
    }
    CompiledRule { conditions, actions: Arc::new(Actions::new(&rule.actions)) }
}

fn condition(value: &Value) -> Condition {
    let text = |name: &str| value.get(name).and_then(Value::as_str);
    let scalar = || value.get("value").filter(|value| is_scalar(value)).cloned();
    let compiled = match text("kind") {
        Some("event_match") => text("key").zip(text("pattern")).map(|(key, glob)| {
            let pattern = if key == "content.body" { Pattern::words(glob) } else { Pattern::whole(glob) };
            Condition::Match { path: split_path(key), pattern }
        }),
        Some("event_property_is") => {
            text("key").zip(scalar()).map(|(key, value)| Condition::Is { path: split_path(key), value })
        }
        Some("event_property_contains") => {
            text("key").zip(scalar()).map(|(key, value)| Condition::Contains { path: split_path(key), value })
        }
        Some("contains_display_name") => Some(Condition::DisplayName),
        Some("room_member_count") => text("is").and_then(member_count),
        Some("sender_notification_permission") => {
            text("key").map(|key| Condition::SenderMayNotify { key: key.to_owned() })
        }
        Some("io.element.msc4306.thread_subscription") => {
            value.get("subscribed").and_then(Value::as_bool).map(|subscribed| Condition::Thread { subscribed })
        }
        _ => None,
    };
    compiled.unwrap_or(Condition::Never)
}

/// Whether a property may be compared with this. SPEC: "event_property_is": the plain values of canonical JSON.
fn is_scalar(value: &Value) -> bool {
    match value {
        Value::Array(_) | Value::Object(_) => false,
        Value::Number(number) => number.as_i64().is_some_and(|number| ruma::Int::try_from(number).is_ok()),
        Value::Null | Value::Bool(_) | Value::String(_) => true,
    }
}

fn member_count(text: &str) -> Option<Condition> {
    use Comparison::{Equal, Greater, GreaterOrEqual, Less, LessOrEqual};
    let prefixes = [("==", Equal), ("<=", LessOrEqual), (">=", GreaterOrEqual), ("<", Less), (">", Greater)];
    let (comparison, number) = prefixes
        .into_iter()
        .find_map(|(prefix, comparison)| Some((comparison, text.strip_prefix(prefix)?)))
        .unwrap_or((Equal, text));
    let decimal = number.bytes().all(|byte| byte.is_ascii_digit());
    Some(Condition::MemberCount { comparison, count: number.parse().ok().filter(|_| decimal)? })
}

/// SPEC: v1.19 appendices, "Dot-separated property paths": a backslash makes a dot or a backslash literal.
pub(super) fn split_path(path: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut chars = path.chars().peekable();
    while let Some(c) = chars.next() {
        let escaped = c == '\\' && chars.peek().is_some_and(|next| matches!(next, '.' | '\\'));
        let c = if escaped { chars.next().unwrap_or(c) } else { c };
        if c == '.' && !escaped {
            parts.push(String::new());
        } else if let Some(part) = parts.last_mut() {
            part.push(c);
        }
    }
    parts
}

impl Core {
    /// The user's rules, today's defaults included.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn push_rules(&self, user: &UserId) -> Result<Ruleset, Error> {
        let stored = self.find_account_data(user, None, PUSH_RULES)?;
        let stored = stored.and_then(|content| serde_json::from_str::<PushRules>(content.get()).ok());
        Ok(super::defaults::with_defaults(user, &self.settings, stored.unwrap_or_default().global))
    }

    /// The content of the user's `m.push_rules`.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn push_rules_json(&self, user: &UserId) -> Result<String, Error> {
        let bytes = crate::house::to_json(&PushRules { global: self.push_rules(user)? })?;
        String::from_utf8(bytes).map_err(|_| Error::internal("push rules are not UTF-8"))
    }

    /// The user's rules, compiled; warm users read no disk.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn compiled_rules(&self, user: &UserId) -> Result<Arc<CompiledRules>, Error> {
        let generation = match self.push.rules.find(user) {
            Ok(rules) => return Ok(rules),
            Err(generation) => generation,
        };
        let rules = Arc::new(CompiledRules::new(&self.push_rules(user)?));
        self.push.rules.remember(generation, user, Arc::clone(&rules));
        Ok(rules)
    }
}

#[cfg(test)]
mod tests {
    use super::split_path;

    #[test]
    fn escaped_dots_are_part_of_a_name() {
        assert_eq!(split_path("content.m\\.mentions.user_ids"), ["content", "m.mentions", "user_ids"]);
        assert_eq!(split_path("a\\\\.b"), ["a\\", "b"]);
        assert_eq!(split_path("a\\x"), ["a\\x"]);
    }
}

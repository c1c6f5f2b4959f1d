//! Changing push rules.
//!
//! SPEC: v1.19 Client-Server API, "Push Rules: API".

use matron_storage::{Batch, CommitError, Key, Table};
use ruma::UserId;
use serde::Deserialize;
use serde_json::Value;

use super::rules::{Kind, PushRules, Rule, Ruleset};
use crate::{Core, Error, accounts::PUSH_RULES, house::to_json};

/// How many rules a user may have.
const MAX_RULES: usize = 1_000;

/// How often a change is tried again when another was faster.
const MAX_ATTEMPTS: usize = 32;

/// The body of `PUT /pushrules/global/{kind}/{ruleId}`.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct RuleBody {
    /// What happens on a match.
    pub actions: Vec<Value>,
    /// For overrides and underrides.
    #[serde(default)]
    pub conditions: Option<Vec<Value>>,
    /// For content rules.
    #[serde(default)]
    pub pattern: Option<String>,
}

/// Where a rule goes among the user's own.
#[derive(Clone, Debug, Default)]
pub struct Place {
    /// It is asked next before this rule.
    pub before: Option<String>,
    /// It is asked next after this rule.
    pub after: Option<String>,
}

fn no_rule() -> Error {
    Error::not_found("there is no such push rule")
}

impl Core {
    /// One rule.
    ///
    /// # Errors
    /// `M_NOT_FOUND`.
    pub fn push_rule(&self, user: &UserId, kind: Kind, rule_id: &str) -> Result<Rule, Error> {
        let rules = self.push_rules(user)?;
        rules.kind(kind).iter().find(|rule| rule.rule_id == rule_id).cloned().ok_or_else(no_rule)
    }

    /// The rule exists with this body. A new one is asked first of its kind; a known one keeps its place, unless told otherwise.
    ///
    /// # Errors
    /// `M_INVALID_PARAM` for ids and bodies that are not allowed; `M_UNKNOWN` for a place that does not exist.
    pub async fn put_push_rule(
        &self,
        user: &UserId,
        kind: Kind,
        rule_id: &str,
        body: RuleBody,
        place: Place,
    ) -> Result<(), Error> {
        check_rule(kind, rule_id, &body)?;
        self.edit_rules(user, |rules| {
            let known = rules.kind(kind).iter().position(|rule| rule.rule_id == rule_id);
            if known.is_none() && rules.len() >= MAX_RULES {
                return Err(Error::invalid(format!("a user has at most {MAX_RULES} push rules")));
            }
            let list = rules.kind_mut(kind);
            let enabled = known.and_then(|index| list.get(index)).is_none_or(|rule| rule.enabled);
            let rule = Rule {
                rule_id: rule_id.to_owned(),
                default: false,
                enabled,
                actions: body.actions.clone(),
                conditions: match kind {
                    Kind::Override | Kind::Underride => Some(body.conditions.clone().unwrap_or_default()),
                    _ => None,
                },
                pattern: if kind == Kind::Content { body.pattern.clone() } else { None },
            };
            let moves = place.before.is_some() || place.after.is_some();
            if let (Some(known), false) = (known.and_then(|index| list.get_mut(index)), moves) {
                *known = rule;
                return Ok(());
            }
            list.retain(|other| other.rule_id != rule_id);
            let index = place_index(list, &place)?;
            list.insert(index.min(list.len()), rule);
            Ok(())
        })
        .await
    }

    /// The rule is gone.
    ///
    /// # Errors
    /// `M_NOT_FOUND`; `M_INVALID_PARAM` for a default rule.
    pub async fn delete_push_rule(&self, user: &UserId, kind: Kind, rule_id: &str) -> Result<(), Error> {
        if rule_id.starts_with('.') {
            return Err(Error::invalid("default rules can be disabled, not deleted"));
        }
        self.edit_rules(user, |rules| {
            let list = rules.kind_mut(kind);
            let before = list.len();
            list.retain(|rule| rule.rule_id != rule_id);
            if list.len() == before { Err(no_rule()) } else { Ok(()) }
        })
        .await
    }

    /// The rule is asked, or not.
    ///
    /// # Errors
    /// `M_NOT_FOUND`.
    pub async fn enable_push_rule(&self, user: &UserId, kind: Kind, rule_id: &str, enabled: bool) -> Result<(), Error> {
        self.edit_rule(user, kind, rule_id, |rule| rule.enabled = enabled).await
    }

    /// The rule has these actions.
    ///
    /// # Errors
    /// `M_NOT_FOUND`; `M_INVALID_PARAM`.
    pub async fn set_push_rule_actions(
        &self,
        user: &UserId,
        kind: Kind,
        rule_id: &str,
        actions: Vec<Value>,
    ) -> Result<(), Error> {
        check_actions(&actions)?;
        self.edit_rule(user, kind, rule_id, |rule| rule.actions.clone_from(&actions)).await
    }

    async fn edit_rule(
        &self,
        user: &UserId,
        kind: Kind,
        rule_id: &str,
        change: impl Fn(&mut Rule) + Send + Sync,
    ) -> Result<(), Error> {
        self.edit_rules(user, |rules| {
            let rule = rules.kind_mut(kind).iter_mut().find(|rule| rule.rule_id == rule_id).ok_or_else(no_rule)?;
            change(rule);
            Ok(())
        })
        .await
    }

    /// The rules are changed by `change`, whatever others do to them meanwhile.
    async fn edit_rules(
        &self,
        user: &UserId,
        change: impl Fn(&mut Ruleset) -> Result<(), Error> + Send + Sync,
    ) -> Result<(), Error> {
        let key = Key::new().text(user).text("").text(PUSH_RULES);
        for _ in 0..MAX_ATTEMPTS {
            let before = self.store.get(Table::UserAccountData, key.as_bytes())?;
            let mut rules = self.push_rules(user)?;
            change(&mut rules)?;
            let json = String::from_utf8(to_json(&PushRules { global: rules })?)
                .map_err(|_| Error::internal("push rules are not UTF-8"))?;
            let mut batch = Batch::new();
            match before {
                Some(before) => batch.expect_equals(Table::UserAccountData, key.clone(), before),
                None => batch.expect_absent(Table::UserAccountData, key.clone()),
            };
            self.batch_account_data(&mut batch, user, None, PUSH_RULES, &json)?;
            let changing = self.begin_account_data(user, PUSH_RULES);
            match self.store.submit(batch).await {
                Ok(_) => {
                    changing.end(self);
                    return Ok(());
                }
                Err(CommitError::Conflict(_)) => {}
                Err(CommitError::Store(error)) => return Err(error.into()),
            }
        }
        Err(Error::internal("push rules changed too often to be changed"))
    }
}

/// Where among the rules of a kind a rule goes. Default rules stay where they are.
fn place_index(list: &[Rule], place: &Place) -> Result<usize, Error> {
    let find = |id: &str| {
        list.iter()
            .position(|rule| rule.rule_id == id && !rule.default)
            .ok_or_else(|| Error::Unknown("the rule named by `before` or `after` does not exist".into()))
    };
    // SPEC: with both, `before` has precedence.
    if let Some(before) = &place.before {
        return find(before);
    }
    if let Some(after) = &place.after {
        return find(after).map(|index| index.saturating_add(1));
    }
    Ok(usize::from(list.first().is_some_and(|rule| rule.rule_id == super::defaults::MASTER)))
}

fn check_rule(kind: Kind, rule_id: &str, body: &RuleBody) -> Result<(), Error> {
    if rule_id.is_empty() || rule_id.len() > 255 {
        return Err(Error::invalid("the id of a push rule has 1 to 255 bytes"));
    }
    if rule_id.starts_with('.') {
        return Err(Error::invalid("ids of push rules that begin with a dot are the server's"));
    }
    if rule_id.contains(['/', '\\']) {
        return Err(Error::invalid("the id of a push rule has no slash or backslash"));
    }
    match kind {
        Kind::PostContent => return Err(Error::invalid("rules of this kind are the server's")),
        Kind::Content if body.pattern.is_none() => return Err(Error::MissingParam("`pattern` is missing".into())),
        Kind::Content if body.pattern.as_ref().is_some_and(|pattern| pattern.len() > 1024) => {
            return Err(Error::invalid("a pattern has at most 1024 bytes"));
        }
        Kind::Override | Kind::Underride => {
            let conditions = body.conditions.as_deref().unwrap_or_default();
            if conditions.len() > 100 || !conditions.iter().all(|one| one.get("kind").is_some_and(Value::is_string)) {
                return Err(Error::invalid("a condition is an object with a `kind`; a rule has at most 100"));
            }
        }
        _ => {}
    }
    check_actions(&body.actions)
}

fn check_actions(actions: &[Value]) -> Result<(), Error> {
    let known = |action: &Value| match action {
        Value::String(name) => matches!(name.as_str(), "notify" | "dont_notify" | "coalesce"),
        Value::Object(tweak) => tweak.get("set_tweak").is_some_and(Value::is_string),
        _ => false,
    };
    if actions.len() <= 100 && actions.iter().all(known) {
        return Ok(());
    }
    Err(Error::invalid("an action is `notify` or sets a tweak"))
}

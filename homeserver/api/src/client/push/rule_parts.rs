//! `/_matrix/client/v3/pushrules/global/{kind}/{ruleId}/enabled` and `…/actions`.

use std::sync::Arc;

use axum::{Json, extract::State};
use matron_core::Core;
use serde::Deserialize;
use serde_json::{Value, json};

use super::kind_of;
use crate::{
    Answer, Empty, empty,
    extract::{Auth, JsonBody, PathArgs},
};

#[derive(Deserialize)]
pub(super) struct Enabled {
    enabled: bool,
}

#[derive(Deserialize)]
pub(super) struct Actions {
    actions: Vec<Value>,
}

/// Whether the rule is asked.
pub(super) async fn enabled(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    PathArgs((scope, kind, id)): PathArgs<(String, String, String)>,
) -> Answer {
    let rule = core.push_rule(&requester.user_id, kind_of(&scope, &kind)?, &id)?;
    Ok(Json(json!({ "enabled": rule.enabled })))
}

/// The rule is asked, or not.
pub(super) async fn enable(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    PathArgs((scope, kind, id)): PathArgs<(String, String, String)>,
    JsonBody(body): JsonBody<Enabled>,
) -> Answer<Empty> {
    core.enable_push_rule(&requester.user_id, kind_of(&scope, &kind)?, &id, body.enabled).await?;
    empty()
}

/// The rule's actions.
pub(super) async fn actions(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    PathArgs((scope, kind, id)): PathArgs<(String, String, String)>,
) -> Answer {
    let rule = core.push_rule(&requester.user_id, kind_of(&scope, &kind)?, &id)?;
    Ok(Json(json!({ "actions": rule.actions })))
}

/// The rule has these actions.
pub(super) async fn set_actions(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    PathArgs((scope, kind, id)): PathArgs<(String, String, String)>,
    JsonBody(body): JsonBody<Actions>,
) -> Answer<Empty> {
    core.set_push_rule_actions(&requester.user_id, kind_of(&scope, &kind)?, &id, body.actions).await?;
    empty()
}

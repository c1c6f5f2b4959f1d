//! `GET`, `PUT` and `DELETE /_matrix/client/v3/pushrules/global/{kind}/{ruleId}`.

use std::sync::Arc;

use axum::{Json, extract::State};
use matron_core::{
    Core,
    push::{Place, Rule, RuleBody},
};
use serde::Deserialize;

use super::kind_of;
use crate::{
    Answer, Empty, empty,
    extract::{Auth, JsonBody, PathArgs, Query},
};

#[derive(Deserialize)]
pub(super) struct Params {
    before: Option<String>,
    after: Option<String>,
}

/// The rule.
pub(super) async fn get(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    PathArgs((scope, kind, id)): PathArgs<(String, String, String)>,
) -> Answer<Rule> {
    Ok(Json(core.push_rule(&requester.user_id, kind_of(&scope, &kind)?, &id)?))
}

/// The rule exists with this body.
pub(super) async fn put(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    PathArgs((scope, kind, id)): PathArgs<(String, String, String)>,
    Query(params): Query<Params>,
    JsonBody(body): JsonBody<RuleBody>,
) -> Answer<Empty> {
    let place = Place { before: params.before, after: params.after };
    core.put_push_rule(&requester.user_id, kind_of(&scope, &kind)?, &id, body, place).await?;
    empty()
}

/// The rule is gone.
pub(super) async fn delete(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    PathArgs((scope, kind, id)): PathArgs<(String, String, String)>,
) -> Answer<Empty> {
    core.delete_push_rule(&requester.user_id, kind_of(&scope, &kind)?, &id).await?;
    empty()
}

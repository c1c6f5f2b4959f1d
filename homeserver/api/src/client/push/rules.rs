//! `GET /_matrix/client/v3/pushrules/…`: all rules, of one scope, of one kind.

use std::sync::Arc;

use axum::{Json, extract::State};
use matron_core::{
    Core,
    push::{Rule, Ruleset},
};
use serde_json::json;

use super::{check_scope, kind_of};
use crate::{
    Answer,
    extract::{Auth, PathArgs},
};

/// All rules.
pub(super) async fn all(State(core): State<Arc<Core>>, Auth(requester): Auth) -> Answer {
    Ok(Json(json!({ "global": core.push_rules(&requester.user_id)? })))
}

/// The global rules.
pub(super) async fn scope(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    PathArgs(scope): PathArgs<String>,
) -> Answer<Ruleset> {
    check_scope(&scope)?;
    Ok(Json(core.push_rules(&requester.user_id)?))
}

/// The rules of one kind.
pub(super) async fn kind(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    PathArgs((scope, kind)): PathArgs<(String, String)>,
) -> Answer<Vec<Rule>> {
    let kind = kind_of(&scope, &kind)?;
    Ok(Json(core.push_rules(&requester.user_id)?.kind(kind).to_vec()))
}

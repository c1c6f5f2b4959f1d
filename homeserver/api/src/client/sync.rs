//! `GET /_matrix/client/v3/sync`

use std::sync::Arc;

use axum::{Json, Router, extract::State, routing::get};
use matron_core::{
    Core,
    presence::status::Presence,
    sync::{SyncAnswer, SyncRequest},
};
use serde::Deserialize;

use crate::{
    Answer, AppState,
    extract::{Auth, Query},
    routing::{Routes, V3},
};

/// The routes of this area.
pub(crate) fn routes() -> Router<AppState> {
    Router::new().client(V3, "/sync", get(handle))
}

/// What a client asks.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Params {
    filter: Option<String>,
    since: Option<String>,
    full_state: bool,
    set_presence: Option<Presence>,
    timeout: Option<u64>,
}

/// Answers what changed since the token, and waits if nothing did.
///
/// # Errors
/// As [`Core::sync`].
pub(crate) async fn handle(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    Query(params): Query<Params>,
) -> Answer<SyncAnswer> {
    let request = SyncRequest {
        since: params.since.as_deref().filter(|since| !since.is_empty()).map(str::parse).transpose()?,
        filter: core.filter_of(&requester.user_id, params.filter.as_deref())?,
        full_state: params.full_state,
        timeout_ms: params.timeout.unwrap_or(0),
        up_to: None,
    };
    let _present = core.begin_sync_presence(&requester.user_id, params.set_presence).await?;
    core.sync(&requester, request).await.map(Json).map_err(Into::into)
}

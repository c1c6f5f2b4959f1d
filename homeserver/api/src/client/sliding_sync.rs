//! `POST /_matrix/client/v4/sync` and its unstable form, `/unstable/org.matrix.simplified_msc3575/sync` (MSC4186)

use std::sync::Arc;

use axum::{Json, Router, extract::State, routing::post};
use matron_core::{
    Core,
    presence::status::Presence,
    sync::sliding::{SlidingAnswer, SlidingRequest},
};
use serde::Deserialize;

use crate::{
    Answer, AppState,
    extract::{Auth, JsonOrEmpty, Query},
    routing::Routes,
};

/// The routes of this area.
pub(crate) fn routes() -> Router<AppState> {
    Router::new().client(&["v4", "unstable/org.matrix.simplified_msc3575"], "/sync", post(handle))
}

/// What the query says.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Params {
    pos: Option<String>,
    timeout: Option<u64>,
    set_presence: Option<Presence>,
}

/// Answers what is new in the windows since `pos`, and waits if nothing is.
///
/// # Errors
/// As [`Core::sliding_sync`].
pub(crate) async fn handle(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    Query(params): Query<Params>,
    JsonOrEmpty(request): JsonOrEmpty<SlidingRequest>,
) -> Answer<SlidingAnswer> {
    let pos = params.pos.as_deref().filter(|pos| !pos.is_empty());
    let _present = core.begin_sync_presence(&requester.user_id, params.set_presence).await?;
    let timeout_ms = params.timeout.unwrap_or(0);
    core.sliding_sync(&requester, pos, timeout_ms, &request).await.map(Json).map_err(Into::into)
}

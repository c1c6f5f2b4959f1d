//! `/_matrix/client/unstable/org.matrix.msc4140/delayed_events`

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::State,
    routing::{get, post},
};
use matron_core::{Core, rooms::delayed::DelayedAction};
use serde::Deserialize;
use serde_json::json;

use crate::{
    Answer, AppState,
    error::{Empty, empty},
    extract::{Auth, JsonBody, OptionalAuth, PathArgs},
    routing::Routes,
};

const UNSTABLE: &[&str] = &["unstable/org.matrix.msc4140"];

/// The routes of this area.
pub(super) fn routes() -> Router<AppState> {
    Router::new()
        .client(UNSTABLE, "/delayed_events", get(all))
        .client(UNSTABLE, "/delayed_events/{delay_id}", post(update))
        .client(UNSTABLE, "/delayed_events/{delay_id}/{action}", post(act))
}

/// Answers what the user has scheduled.
///
/// # Errors
/// As [`Core::delayed_events`].
async fn all(State(core): State<Arc<Core>>, Auth(requester): Auth) -> Answer {
    Ok(Json(json!({ "delayed_events": core.delayed_events(&requester.user_id)? })))
}

#[derive(Debug, Deserialize)]
struct Body {
    action: DelayedAction,
}

/// A scheduled event is put off, sent or cancelled. Its id is the proof that the caller may.
///
/// # Errors
/// As [`Core::update_delayed`].
async fn update(
    State(core): State<Arc<Core>>,
    OptionalAuth(_): OptionalAuth,
    PathArgs(id): PathArgs<String>,
    JsonBody(body): JsonBody<Body>,
) -> Answer<Empty> {
    core.update_delayed(&id, body.action).await?;
    empty()
}

/// As [`update`], with the action in the path.
///
/// # Errors
/// As [`Core::update_delayed`].
async fn act(
    State(core): State<Arc<Core>>,
    OptionalAuth(_): OptionalAuth,
    PathArgs((id, action)): PathArgs<(String, DelayedAction)>,
) -> Answer<Empty> {
    core.update_delayed(&id, action).await?;
    empty()
}

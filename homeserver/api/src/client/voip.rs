//! `GET /_matrix/client/v3/voip/turnServer`

use std::sync::Arc;

use axum::{Json, Router, extract::State, routing::get};
use matron_core::{Core, turn::TurnServer};

use crate::{
    Answer, AppState,
    extract::Auth,
    routing::{Routes, V3},
};

/// The routes of this area.
pub(crate) fn routes() -> Router<AppState> {
    Router::new().client(V3, "/voip/turnServer", get(turn_server))
}

/// Answers credentials for the TURN servers, or `{}` where there are none.
///
/// # Errors
/// As [`Core::turn_server`].
pub(crate) async fn turn_server(State(core): State<Arc<Core>>, Auth(requester): Auth) -> Answer<TurnServer> {
    Ok(Json(core.turn_server(&requester)?))
}

//! What application services ask of the homeserver.

mod ping;

use axum::{Router, routing::post};

use crate::{
    AppState,
    routing::{Routes, V1},
};

/// The routes of this part.
pub fn routes() -> Router<AppState> {
    Router::new().client(V1, "/appservice/{id}/ping", post(ping::ping))
}

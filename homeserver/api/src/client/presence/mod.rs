//! Presence.

mod status;

use axum::{Router, routing::get};

use crate::{
    AppState,
    routing::{Routes, V3},
};

/// The routes of this area.
pub(super) fn routes() -> Router<AppState> {
    Router::new().client(V3, "/presence/{user_id}/status", get(status::get).put(status::put))
}

//! Typing notifications.

mod put;

use axum::Router;

use crate::{
    AppState,
    routing::{Routes, V3},
};

/// The routes of this area.
pub(super) fn routes() -> Router<AppState> {
    Router::new().client(V3, "/rooms/{room_id}/typing/{user_id}", axum::routing::put(put::put))
}

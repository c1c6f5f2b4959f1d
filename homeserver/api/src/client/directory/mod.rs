//! The user directory, and third-party networks.

mod users;

use axum::{Router, routing::post};

use crate::{
    AppState,
    routing::{Routes, V3},
};

pub(super) fn routes() -> Router<AppState> {
    Router::new().client(V3, "/user_directory/search", post(users::search))
}

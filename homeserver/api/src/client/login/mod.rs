//! Logging in and out.

mod get_token;
mod log_in;
mod logout;
mod refresh;

use axum::{
    Router,
    routing::{get, post},
};

use crate::{
    AppState,
    routing::{Routes, V1, V3},
};

pub(super) fn routes() -> Router<AppState> {
    Router::new()
        .client(V3, "/login", get(log_in::flows).post(log_in::log_in))
        .client(V1, "/login/get_token", post(get_token::get_token))
        .client(&["v3", "v1"], "/refresh", post(refresh::refresh))
        .client(V3, "/logout", post(logout::logout))
        .client(V3, "/logout/all", post(logout::logout_all))
}

//! Registering.

mod available;
mod create;
mod token_validity;

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
        .client(V3, "/register", post(create::register))
        .client(V3, "/register/available", get(available::available))
        .client(V1, "/register/m.login.registration_token/validity", get(token_validity::validity))
}

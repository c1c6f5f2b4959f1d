//! Operators' endpoints: Synapse-compatible paths that tools and test suites expect.

mod register;

use axum::{Router, routing::get};

use crate::AppState;

/// The routes of this part.
pub fn routes() -> Router<AppState> {
    Router::new().route("/_synapse/admin/v1/register", get(register::nonce).post(register::register))
}

//! Operators' endpoints: Synapse-compatible paths that tools and test suites expect.

use axum::Router;

use crate::AppState;

/// The routes of this part.
pub fn routes() -> Router<AppState> {
    Router::new()
}

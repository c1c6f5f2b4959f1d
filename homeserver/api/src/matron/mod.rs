//! Matron's own endpoints, under `/_matron/v1`.

use axum::Router;

use crate::AppState;

/// The routes of this part.
pub fn routes() -> Router<AppState> {
    Router::new()
}

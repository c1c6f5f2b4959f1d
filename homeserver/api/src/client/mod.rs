//! The Client-Server API: one folder per area, one file per endpoint, one line here per area.

use axum::Router;

use crate::AppState;

/// The routes of this part.
pub fn routes() -> Router<AppState> {
    Router::new()
}

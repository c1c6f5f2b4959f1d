//! The Client-Server API: one folder per area, one file per endpoint, one line here per area.

mod room;
mod sync;

use axum::Router;

use crate::AppState;

/// The routes of this part.
pub fn routes() -> Router<AppState> {
    Router::new().merge(room::routes()).merge(sync::routes())
}

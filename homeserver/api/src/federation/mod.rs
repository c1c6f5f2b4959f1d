//! The Server-Server API and published keys.

mod key;
mod media;
mod version;

use axum::Router;

use crate::AppState;

/// The routes of this part.
pub fn routes() -> Router<AppState> {
    Router::new().merge(key::routes()).merge(media::routes()).merge(version::routes())
}

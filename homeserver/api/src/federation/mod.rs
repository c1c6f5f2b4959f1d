//! The Server-Server API and published keys.

mod key;
mod media;
mod send;
mod version;

use axum::Router;

use crate::AppState;

/// The routes of this part.
pub fn routes() -> Router<AppState> {
    Router::new().merge(key::routes()).merge(media::routes()).merge(send::routes()).merge(version::routes())
}

#[cfg(test)]
mod tests;

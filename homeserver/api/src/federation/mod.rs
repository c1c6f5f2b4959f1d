//! The Server-Server API and published keys.

mod handshake;
mod invite;
mod key;
mod media;
mod public_rooms;
mod query;
mod read;
mod send;
mod user;
mod version;

use axum::Router;

use crate::AppState;

/// The routes of this part.
pub fn routes() -> Router<AppState> {
    Router::new()
        .merge(handshake::routes())
        .merge(invite::routes())
        .merge(key::routes())
        .merge(media::routes())
        .merge(public_rooms::routes())
        .merge(query::routes())
        .merge(read::routes())
        .merge(send::routes())
        .merge(user::routes())
        .merge(version::routes())
}

#[cfg(test)]
mod tests;

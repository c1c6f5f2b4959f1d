//! `/_matrix/key/v2`: signing keys, ours and those that we vouch for.

mod query;
mod server;

use axum::Router;

use crate::AppState;

/// The routes of this folder.
pub(super) fn routes() -> Router<AppState> {
    Router::new().merge(server::routes()).merge(query::routes())
}

//! What this server is and can do.

mod capabilities;
mod versions;
mod well_known;

use axum::{Router, routing::get};

use crate::{
    AppState,
    routing::{Routes, V3},
};

pub(super) fn routes() -> Router<AppState> {
    Router::new()
        .route("/_matrix/client/versions", get(versions::versions))
        .client(V3, "/capabilities", get(capabilities::capabilities))
        .route("/.well-known/matrix/client", get(well_known::client))
        .route("/.well-known/matrix/server", get(well_known::server))
        .route("/.well-known/matrix/support", get(well_known::support))
        .route("/.well-known/matrix/policy_server", get(well_known::policy_server))
}

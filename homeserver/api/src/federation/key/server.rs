//! `GET /_matrix/key/v2/server`
//!
//! Spec: <https://spec.matrix.org/v1.19/server-server-api/#get_matrixkeyv2server>.

use std::sync::Arc;

use axum::{Json, Router, extract::State, routing::get};
use matron_core::Core;
use ruma::CanonicalJsonObject;

use crate::{Answer, AppState};

/// The routes of this file. The form with a key id is older than the specification's present text and still asked for.
pub(super) fn routes() -> Router<AppState> {
    Router::new()
        .route("/_matrix/key/v2/server", get(server))
        .route("/_matrix/key/v2/server/", get(server))
        .route("/_matrix/key/v2/server/{key_id}", get(server))
}

async fn server(State(core): State<Arc<Core>>) -> Answer<CanonicalJsonObject> {
    Ok(Json(core.own_key_document().await?))
}

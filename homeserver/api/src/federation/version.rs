//! `GET /_matrix/federation/v1/version`
//!
//! Spec: <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1version>.

use axum::{Json, Router, routing::get};
use serde_json::{Value, json};

use crate::AppState;

/// The routes of this file.
pub(super) fn routes() -> Router<AppState> {
    Router::new().route("/_matrix/federation/v1/version", get(version))
}

async fn version() -> Json<Value> {
    Json(json!({ "server": { "name": "Matron", "version": env!("CARGO_PKG_VERSION") } }))
}

//! `GET /_matrix/client/v1/auth_metadata`, and the older paths to the same.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use http::header;
use matron_core::Core;
use serde_json::{Value, json};

use crate::{Answer, ApiError};

/// The authorization server's metadata.
pub(super) async fn metadata(State(core): State<Arc<Core>>) -> Result<Response, ApiError> {
    let metadata = core.auth_metadata()?;
    Ok(([(header::CACHE_CONTROL, "public, max-age=300")], Json(metadata)).into_response())
}

/// The issuer alone.
pub(super) async fn issuer(State(core): State<Arc<Core>>) -> Answer {
    let metadata = core.auth_metadata()?;
    Ok(Json(json!({ "issuer": metadata.get("issuer").cloned().unwrap_or(Value::Null) })))
}

/// No keys: nothing that clients are given is signed. Libraries for OpenID Connect ask all the same.
pub(super) async fn keys(State(core): State<Arc<Core>>) -> Answer {
    core.check_oauth_enabled()?;
    Ok(Json(json!({ "keys": [] })))
}

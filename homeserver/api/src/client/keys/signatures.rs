//! `POST /_matrix/client/v3/keys/signatures/upload`

use std::sync::Arc;

use axum::{Json, extract::State};
use matron_core::{Core, keys::signatures::SignaturesUpload};
use serde_json::json;

use crate::{
    Answer,
    extract::{Auth, JsonBody},
};

/// Right signatures are kept; answers the others.
///
/// # Errors
/// As [`Core::upload_signatures`].
pub(super) async fn post(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    JsonBody(body): JsonBody<SignaturesUpload>,
) -> Answer {
    let failures = core.upload_signatures(&requester.user_id, body).await?;
    Ok(Json(json!({ "failures": failures })))
}

//! `POST /_matrix/client/v3/keys/upload`

use std::sync::Arc;

use axum::{Json, extract::State};
use matron_core::{Core, keys::upload::KeysUpload};
use serde_json::json;

use crate::{
    Answer,
    extract::{Auth, JsonOrEmpty},
};

/// The device's keys are published; answers how many one-time keys it has.
///
/// # Errors
/// As [`Core::upload_keys`].
pub(super) async fn post(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    JsonOrEmpty(body): JsonOrEmpty<KeysUpload>,
) -> Answer {
    let counts = core.upload_keys(&requester, body).await?;
    Ok(Json(json!({ "one_time_key_counts": counts })))
}

//! `GET /_matrix/client/v1/media/config`

use std::sync::Arc;

use axum::{Json, extract::State};
use matron_core::Core;
use serde_json::json;

use crate::{Answer, extract::Auth};

/// Answers how large an upload may be.
///
/// # Errors
/// Those of the token.
pub(super) async fn get(State(core): State<Arc<Core>>, Auth(_requester): Auth) -> Answer {
    Ok(Json(json!({ "m.upload.size": core.settings.max_upload_bytes })))
}

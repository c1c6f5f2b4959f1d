//! `POST /_matrix/client/v1/login/get_token`.

use std::sync::Arc;

use axum::{Json, extract::State};
use matron_core::Core;
use serde_json::json;

use crate::{
    Answer,
    extract::{Auth, JsonOrEmpty, UiaBody},
};

/// A token that logs the user in once, on another device.
pub(super) async fn get_token(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    JsonOrEmpty(body): JsonOrEmpty<UiaBody>,
) -> Answer {
    let (login_token, expires_in_ms) = core.create_login_token(&requester, body.auth.as_ref()).await?;
    Ok(Json(json!({ "login_token": login_token, "expires_in_ms": expires_in_ms })))
}

//! `POST /_matrix/client/v3/keys/claim`

use std::sync::Arc;

use axum::{Json, extract::State};
use matron_core::{
    Core,
    keys::claim::{ClaimAnswer, KeysClaim},
};

use crate::{
    Answer,
    extract::{Auth, JsonBody},
};

/// Answers one-time keys that nobody else received.
///
/// # Errors
/// As [`Core::claim_keys`].
pub(super) async fn post(
    State(core): State<Arc<Core>>,
    Auth(_requester): Auth,
    JsonBody(body): JsonBody<KeysClaim>,
) -> Answer<ClaimAnswer> {
    Ok(Json(core.claim_keys(body).await?))
}

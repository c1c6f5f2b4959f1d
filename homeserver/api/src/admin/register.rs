//! `GET` and `POST /_synapse/admin/v1/register`: registering with a shared secret.

use std::sync::Arc;

use axum::{Json, extract::State};
use matron_core::{
    Core,
    accounts::{Registered, SharedSecretRegister},
};
use serde_json::json;

use crate::{
    Answer,
    extract::{JsonBody, Shown},
};

/// A nonce.
pub(super) async fn nonce(State(core): State<Arc<Core>>, _limited: Shown) -> Answer {
    Ok(Json(json!({ "nonce": core.shared_secret_nonce()? })))
}

/// The account.
pub(super) async fn register(
    State(core): State<Arc<Core>>,
    _limited: Shown,
    JsonBody(body): JsonBody<SharedSecretRegister>,
) -> Answer<Registered> {
    Ok(Json(core.register_by_shared_secret(body).await?))
}

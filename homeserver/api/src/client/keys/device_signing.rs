//! `POST /_matrix/client/v3/keys/device_signing/upload`

use std::sync::Arc;

use axum::extract::State;
use matron_core::{Core, keys::cross_signing::CrossSigningUpload};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    Answer, Empty, empty,
    extract::{Auth, JsonBody},
};

/// The keys, and the proof of who asks.
#[derive(Debug, Deserialize)]
pub(super) struct Body {
    #[serde(default)]
    auth: Option<Value>,
    #[serde(flatten)]
    keys: CrossSigningUpload,
}

/// The user has this identity. A first one, and one that is there already, need no further proof.
///
/// # Errors
/// 401 until the user has proved who they are; as [`Core::upload_cross_signing_keys`].
pub(super) async fn post(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    JsonBody(body): JsonBody<Body>,
) -> Answer<Empty> {
    core.check_cross_signing_keys(&requester.user_id, &body.keys)?;
    if core.cross_signing_needs_auth(&requester.user_id, &body.keys)? {
        core.authenticate_identity_reset(&requester, body.auth.as_ref()).await?;
    }
    core.upload_cross_signing_keys(&requester.user_id, &body.keys).await?;
    empty()
}

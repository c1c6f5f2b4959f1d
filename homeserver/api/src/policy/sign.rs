//! `POST /_matrix/policy/v1/sign`
//!
//! Spec: <https://spec.matrix.org/v1.19/server-server-api/#post_matrixpolicyv1sign>.

use std::sync::Arc;

use axum::{Json, Router, extract::State, routing::post};
use matron_core::Core;
use serde_json::value::RawValue;

use crate::{Answer, AppState, extract::PeerJson};

/// The largest question, bytes; the event itself is bounded by its format.
const MAX_BYTES: usize = 1024 * 1024;

/// The routes of this endpoint.
pub(super) fn routes() -> Router<AppState> {
    Router::new().route("/_matrix/policy/v1/sign", post(handle))
}

/// The signature that recommends the event, if the room's policy permits it.
///
/// # Errors
/// As [`Core::sign_for_room`].
async fn handle(
    State(core): State<Arc<Core>>,
    PeerJson { server, body }: PeerJson<Box<RawValue>, MAX_BYTES>,
) -> Answer {
    Ok(Json(core.sign_for_room(&server, &body).await?))
}

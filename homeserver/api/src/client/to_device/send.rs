//! `PUT /_matrix/client/v3/sendToDevice/{eventType}/{txnId}`

use std::sync::Arc;

use axum::extract::State;
use matron_core::{Core, keys::send_to_device::Messages};
use serde::Deserialize;

use crate::{
    Answer, Empty, empty,
    extract::{Auth, JsonBody, LARGE_JSON_BYTES, PathArgs},
};

/// User to device to content.
#[derive(Debug, Deserialize)]
pub(super) struct Body {
    messages: Messages,
}

/// Each device named has the message, once.
///
/// # Errors
/// As [`Core::send_to_device`].
pub(super) async fn put(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    PathArgs((kind, txn_id)): PathArgs<(String, String)>,
    JsonBody(body): JsonBody<Body, LARGE_JSON_BYTES>,
) -> Answer<Empty> {
    core.send_to_device(&requester, &kind, &txn_id, body.messages).await?;
    empty()
}

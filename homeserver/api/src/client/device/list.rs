//! `GET /_matrix/client/v3/devices`.

use std::sync::Arc;

use axum::{Json, extract::State};
use matron_core::Core;
use serde_json::json;

use crate::{Answer, extract::Auth};

/// The user's devices.
pub(super) async fn list(State(core): State<Arc<Core>>, Auth(requester): Auth) -> Answer {
    Ok(Json(json!({ "devices": core.devices(&requester.user_id)? })))
}

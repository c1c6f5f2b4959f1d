//! `GET /_matrix/client/v3/account/whoami`.

use std::sync::Arc;

use axum::{Json, extract::State};
use matron_core::Core;
use serde_json::{Value, json};

use crate::{Answer, extract::Auth};

/// Whom the token proves.
pub(super) async fn whoami(State(_core): State<Arc<Core>>, Auth(requester): Auth) -> Answer {
    let mut body = json!({ "user_id": requester.user_id, "is_guest": requester.is_guest });
    if let (Some(device), Some(body)) = (requester.device_id, body.as_object_mut()) {
        body.insert("device_id".to_owned(), Value::from(device.as_str()));
    }
    Ok(Json(body))
}

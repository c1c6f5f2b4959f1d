//! `POST /_matron/v1/credential`

use std::sync::Arc;

use axum::{Json, extract::State};
use matron_core::Core;
use serde_json::{Value, json};

use super::audit::require_officer;
use crate::{
    Answer,
    extract::{Auth, JsonBody},
};

/// The largest credential that is read, bytes.
const MAX_BYTES: usize = 16 * 1024;

/// The user whom the credential names shows it from now on, in every room.
///
/// # Errors
/// `M_FORBIDDEN` for who is no officer, and for a credential that is not genuine and current; `M_BAD_JSON`; `M_NOT_FOUND`
/// for a user without an account here.
pub(super) async fn store(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    JsonBody(credential): JsonBody<Value, MAX_BYTES>,
) -> Answer {
    require_officer(&core, &requester)?;
    let user = core.store_credential(requester.user_id.as_str(), &credential).await?;
    Ok(Json(json!({ "user_id": user })))
}

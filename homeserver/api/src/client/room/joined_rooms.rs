//! `GET /_matrix/client/v3/joined_rooms`

use std::sync::Arc;

use axum::{Json, extract::State};
use matron_core::Core;
use serde_json::json;

use crate::{Answer, extract::Auth};

/// Answers the ids of the rooms that the user is joined to.
///
/// # Errors
/// As [`Core::joined_rooms`].
pub(crate) async fn get(State(core): State<Arc<Core>>, Auth(requester): Auth) -> Answer {
    Ok(Json(json!({"joined_rooms": core.joined_rooms(&requester.user_id)?})))
}

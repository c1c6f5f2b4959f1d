//! `POST /_matrix/client/v3/createRoom`

use std::sync::Arc;

use axum::{Json, extract::State};
use matron_core::{Core, rooms::create::CreateRoom};
use serde_json::json;

use crate::{
    Answer,
    extract::{Auth, JsonBody},
};

/// The room exists; answers its id.
///
/// # Errors
/// As [`Core::create_room`].
pub(crate) async fn post(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    JsonBody(body): JsonBody<CreateRoom>,
) -> Answer {
    core.check_not_suspended(&requester)?;
    let room_id = core.create_room(&requester.user_id, body).await?;
    Ok(Json(json!({"room_id": room_id})))
}

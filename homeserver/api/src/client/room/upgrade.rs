//! `POST /_matrix/client/v3/rooms/{roomId}/upgrade`

use std::sync::Arc;

use axum::{Json, extract::State};
use matron_core::Core;
use ruma::{OwnedRoomId, OwnedUserId};
use serde::Deserialize;
use serde_json::json;

use crate::{
    Answer,
    extract::{Auth, JsonBody, PathArgs},
};

/// Which version, and who creates the new room too.
#[derive(Debug, Deserialize)]
pub(crate) struct Body {
    new_version: String,
    #[serde(default)]
    additional_creators: Vec<OwnedUserId>,
}

/// A new room stands in for this one; answers its id.
///
/// # Errors
/// As [`Core::upgrade_room`].
pub(crate) async fn post(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    PathArgs(room): PathArgs<OwnedRoomId>,
    JsonBody(body): JsonBody<Body>,
) -> Answer {
    core.check_not_suspended(&requester)?;
    let replacement = core.upgrade_room(&requester, &room, &body.new_version, &body.additional_creators).await?;
    Ok(Json(json!({"replacement_room": replacement})))
}

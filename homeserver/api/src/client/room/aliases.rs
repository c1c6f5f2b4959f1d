//! `GET /_matrix/client/v3/rooms/{roomId}/aliases`

use std::sync::Arc;

use axum::{Json, extract::State};
use matron_core::Core;
use ruma::OwnedRoomId;
use serde_json::json;

use crate::{
    Answer,
    extract::{Auth, PathArgs},
};

/// Answers this server's aliases of the room.
///
/// # Errors
/// As [`Core::room_aliases`].
pub(crate) async fn get(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    PathArgs(room): PathArgs<OwnedRoomId>,
) -> Answer {
    Ok(Json(json!({"aliases": core.room_aliases(&requester.user_id, &room)?})))
}

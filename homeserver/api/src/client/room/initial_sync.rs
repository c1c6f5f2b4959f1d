//! `GET /_matrix/client/v3/initialSync` and `/rooms/{roomId}/initialSync`: deprecated; older tools use them.

use std::sync::Arc;

use axum::{Json, extract::State};
use matron_core::Core;
use ruma::OwnedRoomId;
use serde::Deserialize;

use crate::{
    Answer,
    extract::{Auth, PathArgs, Query},
};

/// How much.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Window {
    limit: Option<u64>,
    archived: bool,
}

/// Answers every room of the user.
///
/// # Errors
/// As [`Core::initial_sync`].
pub(crate) async fn get(State(core): State<Arc<Core>>, Auth(requester): Auth, Query(window): Query<Window>) -> Answer {
    Ok(Json(core.initial_sync(&requester, window.limit, window.archived).await?))
}

/// Answers one room.
///
/// # Errors
/// As [`Core::room_initial_sync`].
pub(crate) async fn get_room(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    PathArgs(room): PathArgs<OwnedRoomId>,
    Query(window): Query<Window>,
) -> Answer {
    Ok(Json(core.room_initial_sync(&requester, &room, window.limit).await?))
}

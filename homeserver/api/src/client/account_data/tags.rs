//! `/_matrix/client/v3/user/{userId}/rooms/{roomId}/tags…`.

use std::sync::Arc;

use axum::{Json, extract::State};
use matron_core::Core;
use ruma::{OwnedRoomId, OwnedUserId};
use serde_json::{Map, Value, json};

use super::check_own;
use crate::{
    Answer, Empty, empty,
    extract::{Auth, JsonOrEmpty, PathArgs},
};

/// The room's tags.
pub(super) async fn list(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    PathArgs((user, room)): PathArgs<(OwnedUserId, OwnedRoomId)>,
) -> Answer {
    check_own(&requester, &user)?;
    Ok(Json(json!({ "tags": core.tags(&user, &room)? })))
}

/// The room has this tag.
pub(super) async fn put(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    PathArgs((user, room, tag)): PathArgs<(OwnedUserId, OwnedRoomId, String)>,
    JsonOrEmpty(value): JsonOrEmpty<Map<String, Value>>,
) -> Answer<Empty> {
    check_own(&requester, &user)?;
    core.set_tag(&user, &room, &tag, Some(Value::Object(value))).await?;
    empty()
}

/// The room has the tag no longer.
pub(super) async fn delete(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    PathArgs((user, room, tag)): PathArgs<(OwnedUserId, OwnedRoomId, String)>,
) -> Answer<Empty> {
    check_own(&requester, &user)?;
    core.set_tag(&user, &room, &tag, None).await?;
    empty()
}

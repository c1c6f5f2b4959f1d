//! `POST …/peek/{roomIdOrAlias}` and `POST …/rooms/{roomId}/unpeek`: a device looks into a world-readable room by its sync.
// MSC: 2753, in its last form. SyTest asks at the path that it proposes.

use std::sync::Arc;

use axum::{Json, extract::State};
use matron_core::Core;
use ruma::{OwnedRoomId, OwnedRoomOrAliasId, OwnedServerName};
use serde::Deserialize;
use serde_json::json;

use crate::{
    Answer,
    extract::{Auth, JsonOrEmpty, PathArgs},
};

/// What a client says beside the room.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Body {
    /// Only checked: a room that this server is not in is not looked into.
    #[serde(rename = "servers")]
    _servers: Vec<OwnedServerName>,
}

/// Nothing is said beside the room.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Nothing {}

/// The device looks into the room; answers the room's id and until when it does.
///
/// # Errors
/// As [`Core::begin_peek`]; [`matron_core::Error::NotFound`] for an alias of no room.
pub(crate) async fn begin(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    PathArgs(room): PathArgs<OwnedRoomOrAliasId>,
    JsonOrEmpty(_body): JsonOrEmpty<Body>,
) -> Answer {
    core.check_peeking()?;
    let room_id = match OwnedRoomId::try_from(room) {
        Ok(room_id) => room_id,
        Err(alias) => core.resolve_alias(&alias).await?.room_id,
    };
    let until_ms = core.begin_peek(&requester, &room_id).await?;
    Ok(Json(json!({ "room_id": room_id, "peek_expiry_ts": until_ms })))
}

/// The device does not look into the room any more.
///
/// # Errors
/// As [`Core::end_peek`].
pub(crate) async fn end(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    PathArgs(room): PathArgs<OwnedRoomId>,
    JsonOrEmpty(_body): JsonOrEmpty<Nothing>,
) -> Answer {
    core.end_peek(&requester, &room).await?;
    Ok(Json(json!({})))
}

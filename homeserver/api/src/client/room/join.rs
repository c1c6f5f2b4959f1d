//! `POST /_matrix/client/v3/join/{roomIdOrAlias}`, `/rooms/{roomId}/join` and `/knock/{roomIdOrAlias}`

use std::sync::Arc;

use axum::{Json, extract::State};
use matron_core::{Core, Error, rooms::membership::JoinOptions};
use ruma::{OwnedRoomId, OwnedRoomOrAliasId, OwnedServerName};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::{
    Answer,
    extract::{Auth, JsonOrEmpty, PathArgs, Query},
};

/// Servers to try.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Via {
    via: Vec<OwnedServerName>,
    server_name: Vec<OwnedServerName>,
}

/// What a client says beside the room.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Body {
    reason: Option<String>,
    third_party_signed: Option<Value>,
    /// What else the member event shall say.
    #[serde(flatten)]
    content: Map<String, Value>,
}

/// The user is joined; answers the room's id.
///
/// # Errors
/// As [`Core::join_room`].
pub(crate) async fn post(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    PathArgs(room): PathArgs<OwnedRoomOrAliasId>,
    Query(via): Query<Via>,
    JsonOrEmpty(body): JsonOrEmpty<Body>,
) -> Answer {
    core.check_not_suspended(&requester)?;
    let (room_id, options) = find(&core, room, via, body).await?;
    core.check_guest_admitted(&requester, &room_id)?;
    let room_id = core.join_room(&requester.user_id, &room_id, options).await?;
    Ok(Json(json!({"room_id": room_id})))
}

/// The user knocks; answers the room's id.
///
/// # Errors
/// As [`Core::knock`].
pub(crate) async fn post_knock(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    PathArgs(room): PathArgs<OwnedRoomOrAliasId>,
    Query(via): Query<Via>,
    JsonOrEmpty(body): JsonOrEmpty<Body>,
) -> Answer {
    core.check_not_suspended(&requester)?;
    let (room_id, options) = find(&core, room, via, body).await?;
    let room_id = core.knock(&requester.user_id, &room_id, options).await?;
    Ok(Json(json!({"room_id": room_id})))
}

async fn find(
    core: &Arc<Core>,
    room: OwnedRoomOrAliasId,
    query: Via,
    body: Body,
) -> Result<(OwnedRoomId, JoinOptions), Error> {
    let mut via = query.via;
    via.extend(query.server_name);
    let room_id = match OwnedRoomId::try_from(room) {
        Ok(room_id) => room_id,
        Err(alias) => {
            let found = core.resolve_alias(&alias).await?;
            via.extend(found.servers);
            found.room_id
        }
    };
    Ok((
        room_id,
        JoinOptions { via, reason: body.reason, third_party_signed: body.third_party_signed, content: body.content },
    ))
}

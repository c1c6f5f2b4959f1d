//! `/_matrix/client/v3/directory/room/{roomAlias}`

use std::sync::Arc;

use axum::{Json, extract::State};
use matron_core::{Core, Error};
use ruma::{OwnedRoomAliasId, OwnedRoomId};
use serde::Deserialize;
use serde_json::json;

use crate::{
    Answer, Empty, empty,
    extract::{Auth, JsonBody, PathArgs},
};

#[derive(Deserialize)]
pub(super) struct Target {
    room_id: OwnedRoomId,
}

/// Answers where the alias leads.
pub(super) async fn get(State(core): State<Arc<Core>>, PathArgs(alias): PathArgs<OwnedRoomAliasId>) -> Answer {
    let target = core.resolve_alias(&alias).await?;
    Ok(Json(json!({"room_id": target.room_id, "servers": target.servers})))
}

/// The alias leads to the room.
pub(super) async fn put(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    PathArgs(alias): PathArgs<OwnedRoomAliasId>,
    JsonBody(target): JsonBody<Target>,
) -> Answer<Empty> {
    match core.add_alias(&requester, &alias, &target.room_id).await {
        Ok(()) => empty(),
        // SPEC: v1.19 Client-Server API, this endpoint: a taken alias is a conflict.
        Err(Error::RoomInUse) => {
            Err(Error::Custom { status: 409, errcode: "M_UNKNOWN", message: "this alias is taken".into() }.into())
        }
        Err(error) => Err(error.into()),
    }
}

/// The alias leads nowhere any more.
pub(super) async fn delete(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    PathArgs(alias): PathArgs<OwnedRoomAliasId>,
) -> Answer<Empty> {
    core.delete_alias(&requester, &alias).await?;
    empty()
}

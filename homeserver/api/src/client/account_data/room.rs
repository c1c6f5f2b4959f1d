//! `GET` and `PUT /_matrix/client/v3/user/{userId}/rooms/{roomId}/account_data/{type}`.

use std::sync::Arc;

use axum::{Json, extract::State};
use matron_core::Core;
use ruma::{OwnedRoomId, OwnedUserId};
use serde_json::value::RawValue;

use super::check_own;
use crate::{
    Answer, Empty, empty,
    extract::{Auth, JsonBody, PathArgs},
};

/// The content.
pub(super) async fn get(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    PathArgs((user, room, kind)): PathArgs<(OwnedUserId, OwnedRoomId, String)>,
) -> Answer<Box<RawValue>> {
    check_own(&requester, &user)?;
    Ok(Json(core.account_data(&user, Some(&room), &kind)?))
}

/// It has this content.
pub(super) async fn put(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    PathArgs((user, room, kind)): PathArgs<(OwnedUserId, OwnedRoomId, String)>,
    JsonBody(content): JsonBody<Box<RawValue>>,
) -> Answer<Empty> {
    check_own(&requester, &user)?;
    core.set_account_data(&requester, Some(&room), &kind, &content).await?;
    empty()
}

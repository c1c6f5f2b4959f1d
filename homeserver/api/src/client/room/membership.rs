//! `POST /_matrix/client/v3/rooms/{roomId}/` `leave`, `forget`, `invite`, `kick`, `ban`, `unban`

use std::sync::Arc;

use axum::extract::State;
use matron_core::{Core, Error};
use ruma::{OwnedRoomId, OwnedUserId};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    Answer, Empty, empty,
    extract::{Auth, JsonBody, JsonOrEmpty, PathArgs},
};

/// Why.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Reason {
    reason: Option<String>,
}

/// Who, and why.
#[derive(Debug, Deserialize)]
pub(crate) struct Target {
    user_id: OwnedUserId,
    #[serde(default)]
    reason: Option<String>,
}

/// Whom to invite.
#[derive(Debug, Deserialize)]
pub(crate) struct Invite {
    user_id: Option<OwnedUserId>,
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    medium: Option<Value>,
}

/// The user has left.
///
/// # Errors
/// As [`Core::leave_room`].
pub(crate) async fn leave(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    PathArgs(room): PathArgs<OwnedRoomId>,
    JsonOrEmpty(body): JsonOrEmpty<Reason>,
) -> Answer<Empty> {
    core.leave_room(&requester.user_id, &room, body.reason.as_deref()).await?;
    empty()
}

/// The room is out of sight.
///
/// # Errors
/// As [`Core::forget_room`].
pub(crate) async fn forget(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    PathArgs(room): PathArgs<OwnedRoomId>,
) -> Answer<Empty> {
    core.forget_room(&requester.user_id, &room).await?;
    empty()
}

/// The user is invited.
///
/// # Errors
/// As [`Core::invite`].
pub(crate) async fn invite(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    PathArgs(room): PathArgs<OwnedRoomId>,
    JsonBody(body): JsonBody<Invite>,
) -> Answer<Empty> {
    core.check_not_suspended(&requester)?;
    let Some(user_id) = body.user_id else {
        return Err(if body.medium.is_some() {
            Error::forbidden("third-party invites need an identity server, and none is configured").into()
        } else {
            Error::MissingParam("the field `user_id` is missing".into()).into()
        });
    };
    core.invite(&requester.user_id, &room, &user_id, body.reason.as_deref(), false).await?;
    empty()
}

/// The user is out.
///
/// # Errors
/// As [`Core::kick`].
pub(crate) async fn kick(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    PathArgs(room): PathArgs<OwnedRoomId>,
    JsonBody(body): JsonBody<Target>,
) -> Answer<Empty> {
    core.kick(&requester.user_id, &room, &body.user_id, body.reason.as_deref()).await?;
    empty()
}

/// The user is out, and stays out.
///
/// # Errors
/// As [`Core::ban`].
pub(crate) async fn ban(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    PathArgs(room): PathArgs<OwnedRoomId>,
    JsonBody(body): JsonBody<Target>,
) -> Answer<Empty> {
    core.ban(&requester.user_id, &room, &body.user_id, body.reason.as_deref()).await?;
    empty()
}

/// The user may come again.
///
/// # Errors
/// As [`Core::unban`].
pub(crate) async fn unban(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    PathArgs(room): PathArgs<OwnedRoomId>,
    JsonBody(body): JsonBody<Target>,
) -> Answer<Empty> {
    core.unban(&requester.user_id, &room, &body.user_id, body.reason.as_deref()).await?;
    empty()
}

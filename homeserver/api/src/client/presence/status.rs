//! `/_matrix/client/v3/presence/{userId}/status`

use std::sync::Arc;

use axum::{Json, extract::State};
use matron_core::{Core, Error, presence::Presence};
use ruma::OwnedUserId;
use serde::Deserialize;

use crate::{
    Answer, Empty, empty,
    extract::{Auth, JsonBody, PathArgs},
};

/// What the user is, and says of it.
#[derive(Debug, Deserialize)]
pub(super) struct Body {
    presence: Presence,
    #[serde(default)]
    status_msg: Option<String>,
}

/// The user's presence is this.
///
/// # Errors
/// `M_FORBIDDEN` for another user; as [`Core::set_presence`].
pub(super) async fn put(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    PathArgs(user): PathArgs<OwnedUserId>,
    JsonBody(body): JsonBody<Body>,
) -> Answer<Empty> {
    if user != requester.user_id {
        return Err(Error::forbidden("you cannot set the presence of another user").into());
    }
    core.set_presence(&user, body.presence, body.status_msg).await?;
    empty()
}

/// Answers a user's presence.
///
/// # Errors
/// As [`Core::presence_of`].
pub(super) async fn get(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    PathArgs(user): PathArgs<OwnedUserId>,
) -> Answer {
    Ok(Json(core.presence_of(&requester.user_id, &user)?))
}

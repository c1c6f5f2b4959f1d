//! `PUT /_matrix/client/v3/rooms/{roomId}/typing/{userId}`

use std::sync::Arc;

use axum::extract::State;
use matron_core::{Core, Error};
use ruma::{OwnedRoomId, OwnedUserId};
use serde::Deserialize;

use crate::{
    Answer, Empty, empty,
    extract::{Auth, JsonBody, PathArgs},
};

/// Whether the user types, and for how long, ms.
#[derive(Debug, Deserialize)]
pub(super) struct Body {
    typing: bool,
    #[serde(default)]
    timeout: Option<u64>,
}

/// The user types in the room, or does not any more.
///
/// # Errors
/// `M_FORBIDDEN` for another user; as [`Core::set_typing`].
pub(super) async fn put(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    PathArgs((room, user)): PathArgs<(OwnedRoomId, OwnedUserId)>,
    JsonBody(body): JsonBody<Body>,
) -> Answer<Empty> {
    if user != requester.user_id {
        return Err(Error::forbidden("you cannot type for another user").into());
    }
    core.set_typing(&user, &room, body.typing, body.timeout).await?;
    empty()
}

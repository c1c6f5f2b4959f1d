//! `POST /_matrix/client/v3/rooms/{roomId}/report[/{eventId}]` and `/users/{userId}/report`

use std::sync::Arc;

use axum::extract::State;
use matron_core::{Core, rooms::report::Reported};
use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId};
use serde::Deserialize;

use crate::{
    Answer, Empty, empty,
    extract::{Auth, JsonOrEmpty, PathArgs},
};

/// Why.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Body {
    reason: Option<String>,
    score: Option<i64>,
}

/// The event is reported.
///
/// # Errors
/// As [`Core::report`].
pub(crate) async fn post_event(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    PathArgs((room, event)): PathArgs<(OwnedRoomId, OwnedEventId)>,
    JsonOrEmpty(body): JsonOrEmpty<Body>,
) -> Answer<Empty> {
    let reported = Reported::Event { room_id: &room, event_id: &event };
    core.report(&requester.user_id, reported, body.reason.as_deref(), body.score).await?;
    empty()
}

/// The room is reported.
///
/// # Errors
/// As [`Core::report`].
pub(crate) async fn post_room(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    PathArgs(room): PathArgs<OwnedRoomId>,
    JsonOrEmpty(body): JsonOrEmpty<Body>,
) -> Answer<Empty> {
    core.report(&requester.user_id, Reported::Room { room_id: &room }, body.reason.as_deref(), None).await?;
    empty()
}

/// The user is reported.
///
/// # Errors
/// As [`Core::report`].
pub(crate) async fn post_user(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    PathArgs(user): PathArgs<OwnedUserId>,
    JsonOrEmpty(body): JsonOrEmpty<Body>,
) -> Answer<Empty> {
    core.report(&requester.user_id, Reported::User { user_id: &user }, body.reason.as_deref(), None).await?;
    empty()
}

//! `GET /_matrix/client/v3/rooms/{roomId}/context/{eventId}`, `/rooms/{roomId}/event/{eventId}` and, deprecated,
//! `/events/{eventId}`

use std::sync::Arc;

use axum::{Json, extract::State};
use matron_core::{Core, rooms::read::context::EventContext};
use ruma::{OwnedEventId, OwnedRoomId};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::messages::filter_of;
use crate::{
    Answer,
    extract::{Auth, PathArgs, Query},
};

/// How much of what.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Window {
    limit: Option<u64>,
    filter: Option<String>,
}

/// Answers the event and what is around it.
///
/// # Errors
/// As [`Core::event_context`].
pub(crate) async fn get(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    PathArgs((room, event)): PathArgs<(OwnedRoomId, OwnedEventId)>,
    Query(window): Query<Window>,
) -> Answer<EventContext> {
    let filter = filter_of(window.filter.as_deref())?;
    Ok(Json(core.event_context(&requester, &room, &event, window.limit, &filter).await?))
}

/// Answers the event.
///
/// # Errors
/// As [`Core::visible_event`].
pub(crate) async fn get_event(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    PathArgs((room, event)): PathArgs<(OwnedRoomId, OwnedEventId)>,
) -> Answer<Box<RawValue>> {
    let event = core.visible_event(&requester.user_id, &room, &event)?;
    Ok(Json(core.client_event_for(&event, &requester.user_id, requester.device_id.as_deref(), true)?))
}

/// Answers the event, whichever room it is of.
///
/// # Errors
/// As [`Core::visible_event_anywhere`].
pub(crate) async fn get_any_event(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    PathArgs(event): PathArgs<OwnedEventId>,
) -> Answer<Box<RawValue>> {
    let event = core.visible_event_anywhere(&requester.user_id, &event)?;
    Ok(Json(core.client_event_for(&event, &requester.user_id, requester.device_id.as_deref(), true)?))
}

//! `/_matrix/client/v3/rooms/{roomId}/state[/{eventType}[/{stateKey}]]`

use std::sync::Arc;

use axum::{Json, extract::State};
use matron_core::{Core, Requester, rooms::send::NewEvent};
use ruma::OwnedRoomId;
use serde::Deserialize;
use serde_json::{Map, Value, json, value::RawValue};

use super::send::Timestamp;
use crate::{
    Answer,
    extract::{Auth, JsonBody, PathArgs, Query},
};

/// How one piece of state is answered.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Format {
    format: Option<String>,
}

/// Answers the whole state that the user may see.
///
/// # Errors
/// As [`Core::room_state`].
pub(crate) async fn get_all(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    PathArgs(room): PathArgs<OwnedRoomId>,
) -> Answer<Vec<Box<RawValue>>> {
    let mut events = Vec::new();
    for event in core.room_state(&requester.user_id, &room)? {
        events.push(core.client_event_for(&event, &requester.user_id, requester.device_id.as_deref(), true)?);
    }
    Ok(Json(events))
}

/// As [`get_one`] with the empty state key.
///
/// # Errors
/// As [`get_one`].
pub(crate) async fn get_without_key(
    core: State<Arc<Core>>,
    auth: Auth,
    PathArgs((room, kind)): PathArgs<(OwnedRoomId, String)>,
    query: Query<Format>,
) -> Answer<Box<RawValue>> {
    get_one(core, auth, PathArgs((room, kind, String::new())), query).await
}

/// Answers the content of one piece of state, or with `?format=event` the event.
///
/// # Errors
/// As [`Core::room_state_event`].
pub(crate) async fn get_one(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    PathArgs((room, kind, key)): PathArgs<(OwnedRoomId, String, String)>,
    Query(query): Query<Format>,
) -> Answer<Box<RawValue>> {
    let event = core.room_state_event(&requester.user_id, &room, &kind, &key)?;
    if query.format.as_deref() == Some("event") {
        let event = core.client_event_for(&event, &requester.user_id, requester.device_id.as_deref(), true)?;
        return Ok(Json(event));
    }
    Ok(Json(event.pdu.content().to_owned()))
}

/// As [`put`] with the empty state key.
///
/// # Errors
/// As [`put`].
pub(crate) async fn put_without_key(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    PathArgs((room, kind)): PathArgs<(OwnedRoomId, String)>,
    Query(at): Query<Timestamp>,
    JsonBody(content): JsonBody<Map<String, Value>>,
) -> Answer {
    set(&core, &requester, room, kind, String::new(), content, at).await
}

/// The state is set; answers the event's id.
///
/// # Errors
/// As [`Core::set_state`].
pub(crate) async fn put(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    PathArgs((room, kind, key)): PathArgs<(OwnedRoomId, String, String)>,
    Query(at): Query<Timestamp>,
    JsonBody(content): JsonBody<Map<String, Value>>,
) -> Answer {
    set(&core, &requester, room, kind, key, content, at).await
}

async fn set(
    core: &Arc<Core>,
    requester: &Requester,
    room: OwnedRoomId,
    kind: String,
    key: String,
    content: Map<String, Value>,
    at: Timestamp,
) -> Answer {
    core.check_not_suspended(requester)?;
    if let Some(delay_ms) = at.delay {
        let new = NewEvent::state(room, requester.user_id.clone(), kind, key, Value::Object(content));
        return Ok(Json(json!({"delay_id": core.schedule_event(new, delay_ms).await?})));
    }
    let at = at.ts.filter(|_| requester.appservice.is_some());
    let event_id = core.set_state(&requester.user_id, &room, &kind, &key, Value::Object(content), at).await?;
    Ok(Json(json!({"event_id": event_id})))
}

//! `PUT /_matrix/client/v3/rooms/{roomId}/redact/{eventId}/{txnId}`

use std::sync::Arc;

use axum::{Json, extract::State};
use matron_core::{
    Core, Requester,
    rooms::send::{NewEvent, Txn},
};
use ruma::{OwnedEventId, OwnedRoomId};
use serde_json::{Map, Value, json};

use crate::{
    Answer,
    extract::{Auth, JsonOrEmpty, PathArgs},
};

/// The event is redacted; answers the id of the redaction.
///
/// # Errors
/// As [`Core::redact_event`].
pub(crate) async fn put(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    PathArgs((room, target, txn)): PathArgs<(OwnedRoomId, OwnedEventId, String)>,
    JsonOrEmpty(content): JsonOrEmpty<Map<String, Value>>,
) -> Answer {
    let txn = Txn::of(&requester, format!("redact {room} {target}"), txn);
    redact(&core, &requester, room, target, content, Some(txn)).await
}

/// As [`put`], without a transaction. Not in the specification; older tools use it.
///
/// # Errors
/// As [`put`].
pub(crate) async fn post(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    PathArgs((room, target)): PathArgs<(OwnedRoomId, OwnedEventId)>,
    JsonOrEmpty(content): JsonOrEmpty<Map<String, Value>>,
) -> Answer {
    redact(&core, &requester, room, target, content, None).await
}

async fn redact(
    core: &Arc<Core>,
    requester: &Requester,
    room: OwnedRoomId,
    target: OwnedEventId,
    content: Map<String, Value>,
    txn: Option<Txn>,
) -> Answer {
    let mut new = NewEvent::message(room, requester.user_id.clone(), "m.room.redaction", Value::Object(content));
    new.redacts = Some(target);
    new.txn = txn;
    let event_id = core.redact_event(new).await?;
    Ok(Json(json!({"event_id": event_id})))
}

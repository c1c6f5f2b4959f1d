//! `PUT /_matrix/client/v3/rooms/{roomId}/send/{eventType}/{txnId}`

use std::sync::Arc;

use axum::{Json, extract::State};
use matron_core::{
    Core, Requester,
    rooms::send::{NewEvent, Txn},
};
use ruma::OwnedRoomId;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::{
    Answer,
    extract::{Auth, JsonBody, PathArgs, Query},
};

/// When it was sent, as an application service says.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Timestamp {
    /// Milliseconds since the Unix epoch.
    pub ts: Option<u64>,
    /// It is to be sent so many milliseconds from now.
    // MSC: 4140.
    #[serde(rename = "org.matrix.msc4140.delay")]
    pub delay: Option<u64>,
}

/// The event is in the room; answers its id, the same for the same transaction.
///
/// # Errors
/// As [`Core::send_event`].
pub(crate) async fn put(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    PathArgs((room, kind, txn)): PathArgs<(OwnedRoomId, String, String)>,
    Query(at): Query<Timestamp>,
    JsonBody(content): JsonBody<Map<String, Value>>,
) -> Answer {
    let txn = Txn::of(&requester, format!("send {room} {kind}"), txn);
    send(&core, &requester, room, kind, content, Some(txn), at).await
}

/// As [`put`], without a transaction: every call is another event. Not in the specification; older tools use it.
///
/// # Errors
/// As [`put`].
pub(crate) async fn post(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    PathArgs((room, kind)): PathArgs<(OwnedRoomId, String)>,
    Query(at): Query<Timestamp>,
    JsonBody(content): JsonBody<Map<String, Value>>,
) -> Answer {
    send(&core, &requester, room, kind, content, None, at).await
}

async fn send(
    core: &Arc<Core>,
    requester: &Requester,
    room: OwnedRoomId,
    kind: String,
    content: Map<String, Value>,
    txn: Option<Txn>,
    at: Timestamp,
) -> Answer {
    core.check_not_suspended(requester)?;
    let mut new = NewEvent::message(room, requester.user_id.clone(), kind, Value::Object(content));
    if new.kind == "m.room.redaction" {
        new.redacts = new.content.get("redacts").and_then(Value::as_str).and_then(|id| id.try_into().ok());
    }
    new.txn = txn;
    new.origin_server_ts_ms = at.ts.filter(|_| requester.appservice.is_some());
    if let Some(delay_ms) = at.delay {
        return Ok(Json(json!({"delay_id": core.schedule_event(new, delay_ms).await?})));
    }
    let event_id = core.send_event(new).await?;
    Ok(Json(json!({"event_id": event_id})))
}

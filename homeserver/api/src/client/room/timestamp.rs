//! `GET /_matrix/client/v1/rooms/{roomId}/timestamp_to_event`

use std::sync::Arc;

use axum::{Json, extract::State};
use matron_core::{Core, rooms::read::token::Direction};
use ruma::OwnedRoomId;
use serde::Deserialize;
use serde_json::json;

use crate::{
    Answer,
    extract::{Auth, PathArgs, Query},
};

/// Which time, and on which side of it.
#[derive(Debug, Deserialize)]
pub(crate) struct Time {
    ts: u64,
    dir: String,
}

/// Answers the event that is closest to the time.
///
/// # Errors
/// As [`Core::fetch_event_at_time`].
pub(crate) async fn get(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    PathArgs(room): PathArgs<OwnedRoomId>,
    Query(time): Query<Time>,
) -> Answer {
    let direction = Direction::parse(&time.dir)?;
    let event = core.fetch_event_at_time(&requester.user_id, &room, time.ts, direction).await?;
    Ok(Json(json!({"event_id": event.id(), "origin_server_ts": event.pdu.origin_server_ts_ms()})))
}

//! `GET /_matrix/client/r0/events`, deprecated: the same stream as `/sync`, as one list of events; of a room that the user is not
//! in, but may look at, what happens there.

use std::sync::Arc;

use axum::{Json, Router, extract::State, routing::get};
use matron_core::{
    Core, Requester,
    rooms::read::peek::PeekToken,
    sync::{SyncAnswer, token::SyncToken},
};
use ruma::{OwnedRoomId, RoomId};
use serde::Deserialize;
use serde_json::{
    Map, Value, json,
    value::{RawValue, to_raw_value},
};

use crate::{
    Answer, AppState,
    extract::{Auth, Query},
    routing::{Routes, V3},
};

/// How long it waits unless told, ms.
const DEFAULT_TIMEOUT_MS: u64 = 30_000;

pub(super) fn routes() -> Router<AppState> {
    Router::new().client(V3, "/events", get(events))
}

#[derive(Deserialize)]
struct Params {
    from: Option<String>,
    timeout: Option<u64>,
    /// Deprecated, and only checked.
    #[serde(rename = "limit")]
    _limit: Option<u64>,
    room_id: Option<OwnedRoomId>,
}

/// What happened since the token, as much as fits, oldest first in each room; without one, what happens from now on.
async fn events(State(core): State<Arc<Core>>, Auth(requester): Auth, Query(params): Query<Params>) -> Answer {
    let from = params.from.as_deref().filter(|from| !from.is_empty());
    let timeout_ms = params.timeout.unwrap_or(DEFAULT_TIMEOUT_MS);
    match &params.room_id {
        Some(room) if !core.is_joined(&requester.user_id, room)? => {
            let peeked = core.peek(&requester, room, from.map(str::parse).transpose()?, timeout_ms).await?;
            let (start, end) = (peeked.start.to_string(), peeked.end.to_string());
            return Ok(Json(json!({ "start": start, "end": end, "chunk": peeked.chunk })));
        }
        None => core.check_not_guest(&requester)?,
        Some(_) => {}
    }
    let since: SyncToken = match from {
        // Who looked at the room before they came in goes on from there.
        Some(from) if from.starts_with('t') => {
            let PeekToken { gap, ephemeral } = from.parse()?;
            let ephemeral = ephemeral.unwrap_or_else(|| core.ephemeral_serial());
            SyncToken { stream: gap.position(), ephemeral, ..SyncToken::default() }
        }
        Some(from) => from.parse()?,
        None => SyncToken { stream: core.position(), ephemeral: core.ephemeral_serial(), ..SyncToken::default() },
    };
    let _present = core.begin_sync_presence(&requester.user_id, None).await?;
    // Without a device nothing is acknowledged that this endpoint cannot tell.
    let requester = Requester { device_id: None, ..requester };
    let answer = core.event_stream(&requester, since, timeout_ms).await?;
    Ok(Json(
        json!({ "start": since.to_string(), "end": answer.next_batch, "chunk": flatten(&answer, params.room_id.as_deref()) }),
    ))
}

fn flatten(answer: &SyncAnswer, only: Option<&RoomId>) -> Vec<Box<RawValue>> {
    let mut chunk: Vec<Box<RawValue>> = answer.presence.events.clone();
    chunk.extend(answer.account_data.events.iter().cloned());
    for (room, joined) in &answer.rooms.join {
        if only.is_some_and(|only| only != room) {
            continue;
        }
        let timeline = joined.timeline.events.iter();
        let rest = joined.ephemeral.events.iter().chain(&joined.account_data.events);
        chunk.extend(joined.state.events.iter().chain(timeline).chain(rest).filter_map(|event| in_room(event, room)));
    }
    for (room, invited) in &answer.rooms.invite {
        chunk.extend(invited.invite_state.events.iter().filter_map(|event| in_room(event, room)));
    }
    for (room, left) in &answer.rooms.leave {
        chunk.extend(left.timeline.events.iter().filter_map(|event| in_room(event, room)));
    }
    chunk
}

fn in_room(event: &RawValue, room: &RoomId) -> Option<Box<RawValue>> {
    let mut event: Map<String, Value> = serde_json::from_str(event.get()).ok()?;
    event.insert("room_id".to_owned(), room.as_str().into());
    to_raw_value(&event).ok()
}

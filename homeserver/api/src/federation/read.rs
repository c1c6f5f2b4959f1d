//! What servers in a room read of it: events, state, history.
//!
//! Spec: <https://spec.matrix.org/v1.19/server-server-api/#retrieving-events> and the sections around it.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::State,
    routing::{get, post},
};
use matron_core::{
    Core, Error,
    federation::serve::{
        Backfill, EventAnswer, EventAuth, Hierarchy, MissingEvents, MissingRequest, NearestEvent, RoomState,
        RoomStateIds,
    },
    rooms::read::token::Direction,
};
use ruma::{OwnedEventId, OwnedRoomId};
use serde::Deserialize;

use crate::{
    Answer, AppState,
    extract::{PathArgs, Peer, PeerJson, PeerQuery},
};

/// The routes of this file.
pub(super) fn routes() -> Router<AppState> {
    Router::new()
        .route("/_matrix/federation/v1/event/{event}", get(event))
        .route("/_matrix/federation/v1/event_auth/{room}/{event}", get(event_auth))
        .route("/_matrix/federation/v1/state/{room}", get(state))
        .route("/_matrix/federation/v1/state_ids/{room}", get(state_ids))
        .route("/_matrix/federation/v1/backfill/{room}", get(backfill))
        .route("/_matrix/federation/v1/get_missing_events/{room}", post(missing_events))
        .route("/_matrix/federation/v1/timestamp_to_event/{room}", get(timestamp_to_event))
        .route("/_matrix/federation/v1/hierarchy/{room}", get(hierarchy))
}

#[derive(Debug, Deserialize)]
struct At {
    event_id: OwnedEventId,
}

#[derive(Debug, Deserialize)]
struct From {
    #[serde(default)]
    v: Vec<OwnedEventId>,
    limit: Option<u64>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
struct Near {
    ts: u64,
    dir: Dir,
}

#[derive(Clone, Copy, Debug, Deserialize)]
enum Dir {
    #[serde(rename = "f")]
    Forward,
    #[serde(rename = "b")]
    Backward,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
struct Children {
    suggested_only: bool,
}

/// Reads that may be long are made on a blocking thread.
async fn reading<T: Send + 'static>(
    core: Arc<Core>,
    read: impl FnOnce(&Core) -> Result<T, Error> + Send + 'static,
) -> Answer<T> {
    let answer = tokio::task::spawn_blocking(move || read(&core)).await;
    Ok(Json(answer.map_err(|_| Error::internal("reading for another server failed"))??))
}

async fn event(
    State(core): State<Arc<Core>>,
    PathArgs(event): PathArgs<OwnedEventId>,
    peer: Peer,
) -> Answer<EventAnswer> {
    Ok(Json(core.serve_event(&peer.server, &event)?))
}

async fn event_auth(
    State(core): State<Arc<Core>>,
    PathArgs((room, event)): PathArgs<(OwnedRoomId, OwnedEventId)>,
    peer: Peer,
) -> Answer<EventAuth> {
    reading(core, move |core| core.serve_event_auth(&peer.server, &room, &event)).await
}

async fn state(
    State(core): State<Arc<Core>>,
    PathArgs(room): PathArgs<OwnedRoomId>,
    at: PeerQuery<At>,
) -> Answer<RoomState> {
    reading(core, move |core| core.serve_state(&at.server, &room, &at.query.event_id)).await
}

async fn state_ids(
    State(core): State<Arc<Core>>,
    PathArgs(room): PathArgs<OwnedRoomId>,
    at: PeerQuery<At>,
) -> Answer<RoomStateIds> {
    reading(core, move |core| core.serve_state_ids(&at.server, &room, &at.query.event_id)).await
}

async fn backfill(
    State(core): State<Arc<Core>>,
    PathArgs(room): PathArgs<OwnedRoomId>,
    PeerQuery { server, query: from }: PeerQuery<From>,
) -> Answer<Backfill> {
    if from.v.is_empty() {
        return Err(Error::MissingParam("the parameter `v` is missing".into()).into());
    }
    reading(core, move |core| core.serve_backfill(&server, &room, &from.v, from.limit)).await
}

async fn missing_events(
    State(core): State<Arc<Core>>,
    PathArgs(room): PathArgs<OwnedRoomId>,
    request: PeerJson<MissingRequest>,
) -> Answer<MissingEvents> {
    reading(core, move |core| core.serve_missing_events(&request.server, &room, &request.body)).await
}

async fn timestamp_to_event(
    State(core): State<Arc<Core>>,
    PathArgs(room): PathArgs<OwnedRoomId>,
    PeerQuery { server, query: near }: PeerQuery<Near>,
) -> Answer<NearestEvent> {
    let direction = match near.dir {
        Dir::Forward => Direction::Forward,
        Dir::Backward => Direction::Backward,
    };
    reading(core, move |core| core.serve_timestamp_to_event(&server, &room, near.ts, direction)).await
}

async fn hierarchy(
    State(core): State<Arc<Core>>,
    PathArgs(room): PathArgs<OwnedRoomId>,
    children: PeerQuery<Children>,
) -> Answer<Hierarchy> {
    reading(core, move |core| core.serve_hierarchy(&children.server, &room, children.query.suggested_only)).await
}

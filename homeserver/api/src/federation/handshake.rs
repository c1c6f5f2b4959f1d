//! `make_*` and `send_*`: how users of other servers come into our rooms and go.
//!
//! Spec: <https://spec.matrix.org/v1.19/server-server-api/#joining-rooms>.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::State,
    routing::{get, put},
};
use matron_core::{
    Core,
    federation::handshake::{JoinAnswer, KnockAnswer, RoomTemplate},
};
use ruma::{OwnedRoomId, OwnedUserId};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    Answer, AppState, Empty,
    extract::{PathArgs, Peer, PeerJson, PeerQuery},
};

/// The largest event in a handshake, bytes; the event itself is bounded by its format.
const MAX_BYTES: usize = 1024 * 1024;

type Event = PeerJson<Box<RawValue>, MAX_BYTES>;
/// The event's id is compared with that of the event: it need not be one.
type Place = PathArgs<(OwnedRoomId, String)>;

/// The routes of this file.
pub(super) fn routes() -> Router<AppState> {
    Router::new()
        .route("/_matrix/federation/v1/make_join/{room}/{user}", get(make_join))
        .route("/_matrix/federation/v1/make_leave/{room}/{user}", get(make_leave))
        .route("/_matrix/federation/v1/make_knock/{room}/{user}", get(make_knock))
        .route("/_matrix/federation/v1/send_join/{room}/{event}", put(send_join_v1))
        .route("/_matrix/federation/v2/send_join/{room}/{event}", put(send_join))
        .route("/_matrix/federation/v1/send_leave/{room}/{event}", put(send_leave_v1))
        .route("/_matrix/federation/v2/send_leave/{room}/{event}", put(send_leave))
        .route("/_matrix/federation/v1/send_knock/{room}/{event}", put(send_knock))
}

/// The versions that the other server supports.
#[derive(Debug, Deserialize)]
struct Versions {
    #[serde(default)]
    ver: Vec<String>,
}

async fn make_join(
    State(core): State<Arc<Core>>,
    PathArgs((room, user)): PathArgs<(OwnedRoomId, OwnedUserId)>,
    asked: PeerQuery<Versions>,
) -> Answer<RoomTemplate> {
    Ok(Json(core.make_join(&asked.server, &room, &user, &asked.query.ver)?))
}

async fn make_leave(
    State(core): State<Arc<Core>>,
    PathArgs((room, user)): PathArgs<(OwnedRoomId, OwnedUserId)>,
    peer: Peer,
) -> Answer<RoomTemplate> {
    Ok(Json(core.make_leave(&peer.server, &room, &user)?))
}

async fn make_knock(
    State(core): State<Arc<Core>>,
    PathArgs((room, user)): PathArgs<(OwnedRoomId, OwnedUserId)>,
    asked: PeerQuery<Versions>,
) -> Answer<RoomTemplate> {
    Ok(Json(core.make_knock(&asked.server, &room, &user, &asked.query.ver)?))
}

async fn send_join(State(core): State<Arc<Core>>, PathArgs((room, event)): Place, join: Event) -> Answer<JoinAnswer> {
    Ok(Json(core.accept_join(&join.server, &room, &event, &join.body).await?))
}

async fn send_join_v1(
    State(core): State<Arc<Core>>,
    PathArgs((room, event)): Place,
    join: Event,
) -> Answer<(u16, JoinAnswer)> {
    Ok(Json((200, core.accept_join(&join.server, &room, &event, &join.body).await?)))
}

async fn send_leave(State(core): State<Arc<Core>>, PathArgs((room, event)): Place, leave: Event) -> Answer<Empty> {
    core.accept_leave(&leave.server, &room, &event, &leave.body).await?;
    crate::empty()
}

async fn send_leave_v1(
    State(core): State<Arc<Core>>,
    PathArgs((room, event)): Place,
    leave: Event,
) -> Answer<(u16, Empty)> {
    core.accept_leave(&leave.server, &room, &event, &leave.body).await?;
    Ok(Json((200, Empty {})))
}

async fn send_knock(
    State(core): State<Arc<Core>>,
    PathArgs((room, event)): Place,
    knock: Event,
) -> Answer<KnockAnswer> {
    Ok(Json(core.accept_knock(&knock.server, &room, &event, &knock.body).await?))
}

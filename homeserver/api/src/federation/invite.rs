//! `PUT /_matrix/federation/{v1,v2}/invite/{roomId}/{eventId}`, `PUT /exchange_third_party_invite/{roomId}`,
//! `PUT /3pid/onbind`, `POST` too: the Identity Service API says so, and identity servers do
//!
//! Spec: <https://spec.matrix.org/v1.19/server-server-api/#inviting-to-a-room>.

use std::sync::Arc;

use axum::{Json, Router, extract::State, routing::put};
use matron_core::{
    Core,
    federation::handshake::{BoundThirdParty, IncomingInvite, SignedInvite, ThirdPartyExchange},
};
use ruma::OwnedRoomId;
use serde_json::value::RawValue;

use crate::{
    Answer, AppState, Empty,
    extract::{JsonBody, Limited, PathArgs, PeerJson},
};

/// The largest invite with the state that it shows, bytes.
const MAX_BYTES: usize = 4 * 1024 * 1024;
/// The largest list of invites that wait for an address, bytes.
const MAX_BOUND_BYTES: usize = 64 * 1024;

/// The routes of this file.
pub(super) fn routes() -> Router<AppState> {
    Router::new()
        .route("/_matrix/federation/v2/invite/{room}/{event}", put(invite))
        .route("/_matrix/federation/v1/invite/{room}/{event}", put(invite_v1))
        .route("/_matrix/federation/v1/exchange_third_party_invite/{room}", put(exchange))
        .route("/_matrix/federation/v1/3pid/onbind", put(on_bind).post(on_bind))
}

async fn invite(
    State(core): State<Arc<Core>>,
    PathArgs((room, event)): PathArgs<(OwnedRoomId, String)>,
    invite: PeerJson<IncomingInvite, MAX_BYTES>,
) -> Answer<SignedInvite> {
    Ok(Json(core.receive_invite(&invite.server, &room, &event, invite.body).await?))
}

async fn invite_v1(
    State(core): State<Arc<Core>>,
    PathArgs((room, event)): PathArgs<(OwnedRoomId, String)>,
    invite: PeerJson<Box<RawValue>, MAX_BYTES>,
) -> Answer<(u16, SignedInvite)> {
    let incoming = IncomingInvite::from_v1(invite.body)?;
    Ok(Json((200, core.receive_invite(&invite.server, &room, &event, incoming).await?)))
}

async fn exchange(
    State(core): State<Arc<Core>>,
    PathArgs(room): PathArgs<OwnedRoomId>,
    exchange: PeerJson<ThirdPartyExchange>,
) -> Answer<Empty> {
    core.exchange_third_party_invite(&exchange.server, &room, exchange.body).await?;
    crate::empty()
}

/// An identity server has no key of ours to sign with: what it brings proves itself, and costs its address a lot.
async fn on_bind(
    State(core): State<Arc<Core>>,
    _limited: Limited<20>,
    JsonBody(bound): JsonBody<BoundThirdParty, MAX_BOUND_BYTES>,
) -> Answer<Empty> {
    core.third_party_bound(bound).await?;
    crate::empty()
}

//! `/_matrix/federation/v1/user/…`: devices and keys of our users.
//!
//! Spec: <https://spec.matrix.org/v1.19/server-server-api/#end-to-end-encryption>.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::State,
    routing::{get, post},
};
use matron_core::{
    Core,
    keys::federation::{FederationClaimed, FederationKeys, FederationKeysClaim, FederationKeysQuery, UserDevices},
};
use ruma::OwnedUserId;

use crate::{
    Answer, AppState,
    extract::{PathArgs, Peer, PeerJson},
};

/// The routes of this file.
pub(super) fn routes() -> Router<AppState> {
    Router::new()
        .route("/_matrix/federation/v1/user/devices/{user}", get(devices))
        .route("/_matrix/federation/v1/user/keys/query", post(query))
        .route("/_matrix/federation/v1/user/keys/claim", post(claim))
}

async fn devices(
    State(core): State<Arc<Core>>,
    PathArgs(user): PathArgs<OwnedUserId>,
    _peer: Peer,
) -> Answer<UserDevices> {
    Ok(Json(core.federation_user_devices(&user)?))
}

async fn query(State(core): State<Arc<Core>>, query: PeerJson<FederationKeysQuery>) -> Answer<FederationKeys> {
    Ok(Json(core.federation_keys_query(query.body)?))
}

async fn claim(State(core): State<Arc<Core>>, claim: PeerJson<FederationKeysClaim>) -> Answer<FederationClaimed> {
    Ok(Json(core.federation_keys_claim(claim.body).await?))
}

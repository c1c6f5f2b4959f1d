//! `GET` and `POST /_matrix/federation/v1/publicRooms`
//!
//! Spec: <https://spec.matrix.org/v1.19/server-server-api/#published-room-directory>.

use std::sync::Arc;

use axum::{Json, Router, extract::State, routing::get};
use matron_core::{
    Core,
    rooms::public::{PublicRooms, PublicRoomsRequest},
};
use serde::Deserialize;

use crate::{
    Answer, AppState,
    extract::{PeerJson, PeerQuery},
};

/// The routes of this file.
pub(super) fn routes() -> Router<AppState> {
    Router::new().route("/_matrix/federation/v1/publicRooms", get(page).post(filtered))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Page {
    limit: Option<u64>,
    since: Option<String>,
    include_all_networks: bool,
    third_party_instance_id: Option<String>,
}

async fn page(State(core): State<Arc<Core>>, PeerQuery { query: page, .. }: PeerQuery<Page>) -> Answer<PublicRooms> {
    let request = PublicRoomsRequest {
        limit: page.limit,
        since: page.since,
        include_all_networks: page.include_all_networks,
        third_party_instance_id: page.third_party_instance_id,
        ..PublicRoomsRequest::default()
    };
    Ok(Json(core.serve_public_rooms(&request)?))
}

async fn filtered(State(core): State<Arc<Core>>, request: PeerJson<PublicRoomsRequest>) -> Answer<PublicRooms> {
    Ok(Json(core.serve_public_rooms(&request.body)?))
}

//! `/_matrix/client/v3/publicRooms`

use std::sync::Arc;

use axum::{Json, extract::State};
use matron_core::{Core, Error, rooms::public::PublicRoomsRequest};
use ruma::OwnedServerName;
use serde::Deserialize;

use crate::{
    Answer,
    extract::{Auth, JsonOrEmpty, OptionalAuth, Query},
};

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Page {
    limit: Option<u64>,
    since: Option<String>,
    server: Option<OwnedServerName>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Server {
    server: Option<OwnedServerName>,
}

/// Answers a page of the directory.
pub(super) async fn get(
    State(core): State<Arc<Core>>,
    OptionalAuth(requester): OptionalAuth,
    Query(page): Query<Page>,
) -> Answer {
    if requester.is_none() && !core.settings.public_rooms_without_auth {
        return Err(Error::MissingToken.into());
    }
    let request = PublicRoomsRequest {
        limit: page.limit,
        since: page.since,
        server: page.server,
        viewer: requester.map(|requester| requester.user_id),
        ..PublicRoomsRequest::default()
    };
    Ok(Json(core.public_rooms(request).await?))
}

/// Answers a page of what the filter lets through.
pub(super) async fn post(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    Query(query): Query<Server>,
    JsonOrEmpty(mut request): JsonOrEmpty<PublicRoomsRequest>,
) -> Answer {
    request.server = query.server;
    request.viewer = Some(requester.user_id);
    Ok(Json(core.public_rooms(request).await?))
}

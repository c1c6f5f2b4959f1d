//! `GET /_matrix/client/v1/room_summary/{roomIdOrAlias}` and `/rooms/{roomId}/hierarchy`

use std::sync::Arc;

use axum::{Json, extract::State};
use matron_core::{
    Core,
    rooms::read::space::{SpacePage, SpaceRequest},
};
use ruma::{OwnedRoomId, OwnedRoomOrAliasId, OwnedServerName};
use serde::Deserialize;

use crate::{
    Answer,
    extract::{Auth, OptionalAuth, PathArgs, Query},
};

/// Servers to ask.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Via {
    via: Vec<OwnedServerName>,
}

/// Which part of the space.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Page {
    suggested_only: bool,
    limit: Option<u64>,
    max_depth: Option<u64>,
    from: Option<String>,
}

/// Answers what may be known of the room from outside.
///
/// # Errors
/// As [`Core::room_summary`].
pub(crate) async fn get_summary(
    State(core): State<Arc<Core>>,
    OptionalAuth(requester): OptionalAuth,
    PathArgs(room): PathArgs<OwnedRoomOrAliasId>,
    Query(mut query): Query<Via>,
) -> Answer {
    let room_id = match OwnedRoomId::try_from(room) {
        Ok(room_id) => room_id,
        Err(alias) => {
            let target = core.resolve_alias(&alias).await?;
            query.via.extend(target.servers);
            target.room_id
        }
    };
    let user = requester.as_ref().map(|requester| &*requester.user_id);
    Ok(Json(core.room_summary(user, &room_id, &query.via).await?))
}

/// Answers the rooms of a space.
///
/// # Errors
/// As [`Core::space_hierarchy`].
pub(crate) async fn get_hierarchy(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    PathArgs(room): PathArgs<OwnedRoomId>,
    Query(page): Query<Page>,
) -> Answer<SpacePage> {
    let request = SpaceRequest {
        suggested_only: page.suggested_only,
        limit: page.limit,
        max_depth: page.max_depth,
        from: page.from,
    };
    Ok(Json(core.space_hierarchy(&requester.user_id, &room, &request).await?))
}

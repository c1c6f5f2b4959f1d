//! `GET /_matrix/federation/v1/query/{queryType}`
//!
//! Spec: <https://spec.matrix.org/v1.19/server-server-api/#querying-for-information>.

use std::sync::Arc;

use axum::{Json, Router, extract::State, routing::get};
use matron_core::{Core, Error};
use ruma::{OwnedRoomAliasId, OwnedUserId};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    Answer, AppState,
    extract::{PathArgs, Peer, PeerQuery},
};

/// The routes of this file.
pub(super) fn routes() -> Router<AppState> {
    Router::new()
        .route("/_matrix/federation/v1/query/directory", get(directory))
        .route("/_matrix/federation/v1/query/profile", get(profile))
        .route("/_matrix/federation/v1/query/{kind}", get(unknown))
}

#[derive(Debug, Deserialize)]
struct Alias {
    room_alias: OwnedRoomAliasId,
}

#[derive(Debug, Deserialize)]
struct Profile {
    user_id: OwnedUserId,
    field: Option<String>,
}

async fn directory(State(core): State<Arc<Core>>, asked: PeerQuery<Alias>) -> Answer {
    let target = core.serve_directory(&asked.query.room_alias).await?;
    Ok(Json(json!({"room_id": target.room_id, "servers": target.servers})))
}

async fn profile(State(core): State<Arc<Core>>, asked: PeerQuery<Profile>) -> Answer {
    let Profile { user_id, field } = &asked.query;
    Ok(Json(Value::Object(core.serve_profile(user_id, field.as_deref()).await?)))
}

async fn unknown(PathArgs(_kind): PathArgs<String>, _peer: Peer) -> Answer {
    Err(Error::not_found("this type of query is not known").into())
}

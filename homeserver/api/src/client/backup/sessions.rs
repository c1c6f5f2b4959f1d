//! `/_matrix/client/v3/room_keys/keys[/{roomId}[/{sessionId}]]`

use std::{collections::BTreeMap, sync::Arc};

use axum::{Json, extract::State};
use matron_core::{
    Core, Error,
    keys::backup::{BackedUpSession, BackupTally, RoomSessions, Scope, Sessions},
};
use ruma::OwnedRoomId;
use serde::Deserialize;

use crate::{
    Answer,
    extract::{Auth, JsonBody, LARGE_JSON_BYTES, PathArgs, Query},
};

/// Of which version.
#[derive(Debug, Deserialize)]
pub(super) struct Params {
    version: String,
}

type Body<T> = JsonBody<T, LARGE_JSON_BYTES>;

/// The version holds these sessions.
///
/// # Errors
/// As [`Core::put_backup_sessions`]; so for all that put.
pub(super) async fn put_all(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    Query(params): Query<Params>,
    JsonBody(sessions): Body<Sessions>,
) -> Answer<BackupTally> {
    Ok(Json(core.put_backup_sessions(&requester.user_id, &params.version, sessions).await?))
}

/// As [`put_all`], of one room.
///
/// # Errors
/// As [`put_all`].
pub(super) async fn put_room(
    core: State<Arc<Core>>,
    auth: Auth,
    PathArgs(room): PathArgs<OwnedRoomId>,
    query: Query<Params>,
    JsonBody(sessions): Body<RoomSessions>,
) -> Answer<BackupTally> {
    put_all(core, auth, query, JsonBody(Sessions { rooms: BTreeMap::from([(room, sessions)]) })).await
}

/// As [`put_all`], of one session.
///
/// # Errors
/// As [`put_all`].
pub(super) async fn put_one(
    core: State<Arc<Core>>,
    auth: Auth,
    PathArgs((room, session_id)): PathArgs<(OwnedRoomId, String)>,
    query: Query<Params>,
    JsonBody(session): JsonBody<BackedUpSession>,
) -> Answer<BackupTally> {
    let sessions = RoomSessions { sessions: BTreeMap::from([(session_id, session)]) };
    put_room(core, auth, PathArgs(room), query, JsonBody(sessions)).await
}

/// Answers all sessions of a version.
///
/// # Errors
/// `M_NOT_FOUND`; so for all that get.
pub(super) async fn get_all(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    Query(params): Query<Params>,
) -> Answer<Sessions> {
    Ok(Json(core.backup_sessions(&requester.user_id, &params.version, Scope::All)?))
}

/// As [`get_all`], of one room.
///
/// # Errors
/// As [`get_all`].
pub(super) async fn get_room(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    PathArgs(room): PathArgs<OwnedRoomId>,
    Query(params): Query<Params>,
) -> Answer<RoomSessions> {
    let mut found = core.backup_sessions(&requester.user_id, &params.version, Scope::Room(&room))?;
    Ok(Json(found.rooms.remove(&room).unwrap_or_default()))
}

/// As [`get_all`], of one session.
///
/// # Errors
/// As [`get_all`].
pub(super) async fn get_one(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    PathArgs((room, session_id)): PathArgs<(OwnedRoomId, String)>,
    Query(params): Query<Params>,
) -> Answer<BackedUpSession> {
    let scope = Scope::Session(&room, &session_id);
    let mut found = core.backup_sessions(&requester.user_id, &params.version, scope)?;
    let session = found.rooms.remove(&room).and_then(|mut room| room.sessions.remove(&session_id));
    Ok(Json(session.ok_or_else(|| Error::not_found("this session is not in the backup"))?))
}

/// All sessions of a version are gone.
///
/// # Errors
/// `M_NOT_FOUND`; so for all that delete.
pub(super) async fn delete_all(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    Query(params): Query<Params>,
) -> Answer<BackupTally> {
    Ok(Json(core.delete_backup_sessions(&requester.user_id, &params.version, Scope::All).await?))
}

/// As [`delete_all`], of one room.
///
/// # Errors
/// As [`delete_all`].
pub(super) async fn delete_room(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    PathArgs(room): PathArgs<OwnedRoomId>,
    Query(params): Query<Params>,
) -> Answer<BackupTally> {
    Ok(Json(core.delete_backup_sessions(&requester.user_id, &params.version, Scope::Room(&room)).await?))
}

/// As [`delete_all`], of one session.
///
/// # Errors
/// As [`delete_all`].
pub(super) async fn delete_one(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    PathArgs((room, session_id)): PathArgs<(OwnedRoomId, String)>,
    Query(params): Query<Params>,
) -> Answer<BackupTally> {
    let scope = Scope::Session(&room, &session_id);
    Ok(Json(core.delete_backup_sessions(&requester.user_id, &params.version, scope).await?))
}

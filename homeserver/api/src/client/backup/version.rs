//! `/_matrix/client/v3/room_keys/version[/{version}]`

use std::sync::Arc;

use axum::{Json, extract::State};
use matron_core::{
    Core,
    keys::backup::{VersionInfo, VersionUpload},
};
use serde_json::json;

use crate::{
    Answer, Empty, empty,
    extract::{Auth, JsonBody, PathArgs},
};

/// There is a new, empty version; answers its id.
///
/// # Errors
/// As [`Core::create_backup_version`].
pub(super) async fn post(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    JsonBody(body): JsonBody<VersionUpload>,
) -> Answer {
    let version = core.create_backup_version(&requester.user_id, body).await?;
    Ok(Json(json!({ "version": version })))
}

/// Answers the current version.
///
/// # Errors
/// `M_NOT_FOUND`.
pub(super) async fn get_current(State(core): State<Arc<Core>>, Auth(requester): Auth) -> Answer<VersionInfo> {
    Ok(Json(core.backup_version(&requester.user_id, None)?))
}

/// Answers one version.
///
/// # Errors
/// `M_NOT_FOUND`.
pub(super) async fn get(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    PathArgs(version): PathArgs<String>,
) -> Answer<VersionInfo> {
    Ok(Json(core.backup_version(&requester.user_id, Some(&version))?))
}

/// The version has this `auth_data`.
///
/// # Errors
/// As [`Core::update_backup_version`].
pub(super) async fn put(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    PathArgs(version): PathArgs<String>,
    JsonBody(body): JsonBody<VersionUpload>,
) -> Answer<Empty> {
    core.update_backup_version(&requester.user_id, &version, body).await?;
    empty()
}

/// The version and its sessions are gone.
///
/// # Errors
/// `M_NOT_FOUND` for a version that never was.
pub(super) async fn delete(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    PathArgs(version): PathArgs<String>,
) -> Answer<Empty> {
    core.delete_backup_version(&requester.user_id, &version).await?;
    empty()
}

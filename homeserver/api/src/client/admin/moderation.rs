//! `/_matrix/client/v1/admin/lock/{userId}` and `/_matrix/client/v1/admin/suspend/{userId}`.
//!
//! SPEC: v1.18 Client-Server API, "Account locking and suspension".

use std::sync::Arc;

use axum::{Json, extract::State};
use matron_core::Core;
use ruma::OwnedUserId;
use serde::Deserialize;
use serde_json::json;

use crate::{
    Answer,
    extract::{Auth, JsonBody, PathArgs},
};

#[derive(Deserialize)]
pub(super) struct Lock {
    locked: bool,
}

#[derive(Deserialize)]
pub(super) struct Suspend {
    suspended: bool,
}

/// Whether the account is locked.
pub(super) async fn locked(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    PathArgs(user): PathArgs<OwnedUserId>,
) -> Answer {
    Ok(Json(json!({ "locked": core.moderated_account(&requester, &user)?.locked })))
}

/// The account is locked, or open again.
pub(super) async fn lock(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    PathArgs(user): PathArgs<OwnedUserId>,
    JsonBody(body): JsonBody<Lock>,
) -> Answer {
    core.set_locked(&requester, &user, body.locked).await?;
    Ok(Json(json!({ "locked": body.locked })))
}

/// Whether the account is suspended.
pub(super) async fn suspended(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    PathArgs(user): PathArgs<OwnedUserId>,
) -> Answer {
    Ok(Json(json!({ "suspended": core.moderated_account(&requester, &user)?.suspended })))
}

/// The account is suspended, or free again.
pub(super) async fn suspend(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    PathArgs(user): PathArgs<OwnedUserId>,
    JsonBody(body): JsonBody<Suspend>,
) -> Answer {
    core.set_suspended(&requester, &user, body.suspended).await?;
    Ok(Json(json!({ "suspended": body.suspended })))
}

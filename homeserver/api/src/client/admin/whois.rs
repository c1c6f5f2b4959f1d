//! `GET /_matrix/client/v3/admin/whois/{userId}`.

use std::sync::Arc;

use axum::{Json, extract::State};
use matron_core::Core;
use ruma::OwnedUserId;

use crate::{
    Answer,
    extract::{Auth, PathArgs},
};

/// Where the user's devices were last seen.
pub(super) async fn whois(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    PathArgs(user): PathArgs<OwnedUserId>,
) -> Answer {
    Ok(Json(core.whois(&requester, &user)?))
}

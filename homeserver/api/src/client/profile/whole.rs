//! `GET /_matrix/client/v3/profile/{userId}`.

use std::sync::Arc;

use axum::{Json, extract::State};
use matron_core::Core;
use ruma::OwnedUserId;
use serde_json::Value;

use crate::{
    Answer,
    extract::{OptionalAuth, PathArgs},
};

/// All fields.
pub(super) async fn whole(
    State(core): State<Arc<Core>>,
    _limited: OptionalAuth,
    PathArgs(user): PathArgs<OwnedUserId>,
) -> Answer {
    Ok(Json(Value::Object(core.profile(&user, None).await?)))
}

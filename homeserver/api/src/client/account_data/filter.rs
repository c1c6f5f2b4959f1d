//! `POST /_matrix/client/v3/user/{userId}/filter` and `GET …/filter/{filterId}`.

use std::sync::Arc;

use axum::{Json, extract::State};
use matron_core::Core;
use ruma::OwnedUserId;
use serde_json::{json, value::RawValue};

use super::check_own;
use crate::{
    Answer,
    extract::{Auth, JsonBody, PathArgs},
};

/// The filter is kept.
pub(super) async fn create(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    PathArgs(user): PathArgs<OwnedUserId>,
    JsonBody(filter): JsonBody<Box<RawValue>>,
) -> Answer {
    check_own(&requester, &user)?;
    Ok(Json(json!({ "filter_id": core.create_filter(&user, &filter).await? })))
}

/// The filter, as it was given.
pub(super) async fn get(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    PathArgs((user, id)): PathArgs<(OwnedUserId, String)>,
) -> Answer<Box<RawValue>> {
    check_own(&requester, &user)?;
    Ok(Json(core.filter_json(&user, &id)?))
}

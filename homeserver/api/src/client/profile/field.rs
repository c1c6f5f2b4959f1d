//! `GET`, `PUT` and `DELETE /_matrix/client/v3/profile/{userId}/{keyName}`.

use std::sync::Arc;

use axum::{Json, extract::State};
use matron_core::{Core, Error};
use ruma::OwnedUserId;
use serde_json::{Map, Value};

use crate::{
    Answer, Empty, empty,
    extract::{Auth, JsonBody, OptionalAuth, PathArgs},
};

/// One field.
pub(super) async fn get(
    State(core): State<Arc<Core>>,
    _limited: OptionalAuth,
    PathArgs((user, field)): PathArgs<(OwnedUserId, String)>,
) -> Answer {
    Ok(Json(Value::Object(core.profile(&user, Some(&field)).await?)))
}

/// The field has this value.
pub(super) async fn put(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    PathArgs((user, field)): PathArgs<(OwnedUserId, String)>,
    JsonBody(mut body): JsonBody<Map<String, Value>>,
) -> Answer<Empty> {
    let value = body.remove(&field).ok_or_else(|| Error::MissingParam(format!("`{field}` is missing").into()))?;
    core.change_profile(&requester, &user, &field, Some(value)).await?;
    empty()
}

/// The field is gone.
pub(super) async fn delete(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    PathArgs((user, field)): PathArgs<(OwnedUserId, String)>,
) -> Answer<Empty> {
    core.change_profile(&requester, &user, &field, None).await?;
    empty()
}

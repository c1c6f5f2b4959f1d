//! `GET /_matrix/app/v1/users/{userId}`, `GET /_matrix/app/v1/rooms/{roomAlias}`, `POST /_matrix/app/v1/ping`

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Value, json};

use super::{ApiError, AppState};

/// The user ids that this application service brings to life. It has no aliases.
#[derive(Debug, Default)]
pub struct OwnIds {
    users: BTreeSet<String>,
}

impl OwnIds {
    /// Exactly these users exist here.
    #[must_use]
    pub fn new(users: impl IntoIterator<Item = String>) -> Self {
        Self { users: users.into_iter().collect() }
    }

    /// True for one of our users.
    #[must_use]
    pub fn has_user(&self, user_id: &str) -> bool {
        self.users.contains(user_id)
    }
}

/// 200 for the bot and the feeds' users, which are registered on start; 404 for all others.
pub(super) async fn user(State(state): State<AppState>, Path(user_id): Path<String>) -> Result<Json<Value>, ApiError> {
    if state.ids.has_user(&user_id) { Ok(Json(json!({}))) } else { Err(ApiError::NotFound) }
}

/// 404: clinical rooms have no aliases.
pub(super) async fn room(Path(_alias): Path<String>) -> ApiError {
    ApiError::NotFound
}

/// 200 `{}`.
pub(super) async fn ping() -> Json<Value> {
    Json(json!({}))
}

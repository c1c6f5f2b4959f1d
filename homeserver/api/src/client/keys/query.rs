//! `POST /_matrix/client/v3/keys/query`

use std::sync::Arc;

use axum::{Json, extract::State};
use matron_core::{
    Core,
    keys::query::{KeysQuery, QueryAnswer},
};

use crate::{
    Answer,
    extract::{Auth, JsonBody},
};

/// Answers the identity keys of these users.
///
/// # Errors
/// As [`Core::query_keys`].
pub(super) async fn post(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    JsonBody(body): JsonBody<KeysQuery>,
) -> Answer<QueryAnswer> {
    Ok(Json(core.query_keys(&requester.user_id, body).await?))
}

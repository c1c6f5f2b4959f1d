//! `POST /_matrix/client/v3/user_directory/search`.

use std::sync::Arc;

use axum::{Json, extract::State};
use matron_core::{Core, accounts::DirectoryPage};
use serde::Deserialize;

use crate::{
    Answer,
    extract::{Auth, JsonBody},
};

#[derive(Deserialize)]
pub(super) struct Body {
    search_term: String,
    limit: Option<usize>,
}

/// Whom the user can find under this term.
pub(super) async fn search(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    JsonBody(body): JsonBody<Body>,
) -> Answer<DirectoryPage> {
    Ok(Json(core.search_users(&requester.user_id, &body.search_term, body.limit.unwrap_or(10)).await?))
}

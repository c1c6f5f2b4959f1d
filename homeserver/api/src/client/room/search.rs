//! `POST /_matrix/client/v3/search`

use std::sync::Arc;

use axum::{Json, extract::State};
use matron_core::{
    Core,
    rooms::read::search::{SearchAnswer, SearchRequest},
};
use serde::Deserialize;

use crate::{
    Answer,
    extract::{Auth, JsonBody, Query},
};

/// Where to go on.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Page {
    next_batch: Option<String>,
}

/// Answers the messages with these words.
///
/// # Errors
/// As [`Core::search`].
pub(crate) async fn post(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    Query(page): Query<Page>,
    JsonBody(request): JsonBody<SearchRequest>,
) -> Answer<SearchAnswer> {
    Ok(Json(core.search(&requester, &request, page.next_batch.as_deref())?))
}

//! `GET /_matrix/client/v1/media/preview_url`

use std::sync::Arc;

use axum::{Json, extract::State};
use matron_core::Core;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{
    Answer,
    extract::{Auth, Query},
};

/// Which page. `ts` is accepted; the page is shown as it is now.
#[derive(Debug, Deserialize)]
pub(super) struct Params {
    url: String,
}

/// Answers what the page says of itself.
///
/// # Errors
/// As [`Core::preview_url`].
pub(super) async fn get(
    State(core): State<Arc<Core>>,
    Auth(_requester): Auth,
    Query(params): Query<Params>,
) -> Answer<Map<String, Value>> {
    Ok(Json(core.preview_url(&params.url).await?))
}

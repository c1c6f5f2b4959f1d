//! `GET /_matrix/client/v3/keys/changes`

use std::sync::Arc;

use axum::{Json, extract::State};
use matron_core::{Core, sync::SyncToken};
use serde::Deserialize;
use serde_json::json;

use crate::{
    Answer,
    extract::{Auth, Query},
};

/// Between which answers of `/sync`.
#[derive(Debug, Deserialize)]
pub(super) struct Params {
    from: String,
    to: String,
}

/// Answers whose devices or identity changed between two syncs.
///
/// # Errors
/// `M_INVALID_PARAM` for tokens that are none.
pub(super) async fn get(State(core): State<Arc<Core>>, Auth(requester): Auth, Query(params): Query<Params>) -> Answer {
    let (from, to): (SyncToken, SyncToken) = (params.from.parse()?, params.to.parse()?);
    let changes = core.device_list_changes_between(&requester.user_id, from.stream, to.stream)?;
    Ok(Json(json!({ "changed": changes.changed, "left": changes.left })))
}

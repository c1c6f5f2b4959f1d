//! `GET /_matron/v1/retention/due`

use std::sync::Arc;

use axum::{Json, extract::State};
use matron_core::{Core, retention::RetentionDue};
use serde::Deserialize;

use crate::{
    Answer,
    extract::{Auth, Query},
};

#[derive(Deserialize)]
pub(super) struct Page {
    limit: Option<usize>,
}

/// What has expired in rooms where the requester may redact, and when the next event expires.
///
/// # Errors
/// `M_FORBIDDEN` for who is neither application service nor officer.
pub(super) async fn due(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    Query(page): Query<Page>,
) -> Answer<RetentionDue> {
    Ok(Json(core.retention_due(&requester, page.limit.unwrap_or(100))?))
}

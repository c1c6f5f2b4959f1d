//! `GET /_matrix/client/v3/notifications`.

use std::sync::Arc;

use axum::{Json, extract::State};
use matron_core::{Core, push::NotificationPage};
use serde::Deserialize;

use crate::{
    Answer,
    extract::{Auth, Query},
};

#[derive(Deserialize)]
pub(super) struct Params {
    from: Option<String>,
    limit: Option<usize>,
    only: Option<String>,
}

/// What notified the user, newest first.
pub(super) async fn list(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    Query(params): Query<Params>,
) -> Answer<NotificationPage> {
    let highlights = params.only.as_deref() == Some("highlight");
    let limit = params.limit.unwrap_or(20);
    Ok(Json(core.notifications(&requester.user_id, params.from.as_deref(), limit, highlights)?))
}

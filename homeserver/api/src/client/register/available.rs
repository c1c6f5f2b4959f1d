//! `GET /_matrix/client/v3/register/available`.

use std::sync::Arc;

use axum::{Json, extract::State};
use matron_core::Core;
use serde::Deserialize;
use serde_json::json;

use crate::{
    Answer,
    extract::{Query, Shown},
};

#[derive(Deserialize)]
pub(super) struct Params {
    username: String,
}

/// Whether the name could be registered now.
pub(super) async fn available(State(core): State<Arc<Core>>, _limited: Shown, Query(params): Query<Params>) -> Answer {
    core.check_username_available(&params.username)?;
    Ok(Json(json!({ "available": true })))
}

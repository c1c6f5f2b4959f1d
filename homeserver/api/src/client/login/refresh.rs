//! `POST /_matrix/client/v3/refresh`.

use std::sync::Arc;

use axum::{Json, extract::State};
use matron_core::{Core, accounts::Issued};
use serde::Deserialize;

use crate::{
    Answer,
    extract::{JsonBody, Shown},
};

#[derive(Deserialize)]
pub(super) struct Body {
    refresh_token: String,
}

/// The next tokens.
pub(super) async fn refresh(
    State(core): State<Arc<Core>>,
    _limited: Shown,
    JsonBody(body): JsonBody<Body>,
) -> Answer<Issued> {
    Ok(Json(core.refresh(&body.refresh_token).await?))
}

//! `POST /oauth2/device`: a device asks to be let in.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use matron_core::Core;
use serde::Deserialize;

use super::{OAuthRefusal, unstored};
use crate::extract::{FormBody, Limited};

#[derive(Deserialize)]
pub(super) struct Form {
    #[serde(default)]
    client_id: String,
    #[serde(default)]
    scope: String,
}

/// The codes.
pub(super) async fn device(
    State(core): State<Arc<Core>>,
    limited: Limited,
    FormBody(form): FormBody<Form>,
) -> Result<Response, OAuthRefusal> {
    let answer = core.authorize_device(&form.client_id, &form.scope, limited.address)?;
    Ok(unstored(Json(answer).into_response()))
}

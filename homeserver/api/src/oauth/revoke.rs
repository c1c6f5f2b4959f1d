//! `POST /oauth2/revoke`.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use matron_core::{Core, oauth::OAuthError};
use serde::Deserialize;
use serde_json::json;

use super::{OAuthRefusal, unstored};
use crate::extract::{FormBody, Limited};

/// `client_id` and `token_type_hint` change nothing: whoever shows a token may end its session.
#[derive(Deserialize)]
pub(super) struct Form {
    token: Option<String>,
}

/// The token's session is gone.
pub(super) async fn revoke(
    State(core): State<Arc<Core>>,
    _limited: Limited,
    FormBody(form): FormBody<Form>,
) -> Result<Response, OAuthRefusal> {
    let token = form.token.ok_or_else(|| OAuthError::refused("invalid_request", "`token` is missing"))?;
    core.revoke_token(&token).await?;
    Ok(unstored(Json(json!({})).into_response()))
}

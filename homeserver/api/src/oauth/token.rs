//! `POST /oauth2/token`.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use matron_core::{Core, oauth::TokenRequest};

use super::{OAuthRefusal, unstored};
use crate::extract::{FormBody, Limited};

/// Tokens for a code, a device code or a refresh token.
pub(super) async fn token(
    State(core): State<Arc<Core>>,
    _limited: Limited,
    form: FormBody<TokenRequest>,
) -> Result<Response, OAuthRefusal> {
    Ok(unstored(Json(core.exchange_token(&form.0).await?).into_response()))
}

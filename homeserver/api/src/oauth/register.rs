//! `POST /oauth2/register`: dynamic client registration.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use http::StatusCode;
use matron_core::{
    Core, Error,
    oauth::{ClientMetadata, OAuthError},
};

use super::{OAuthRefusal, unstored};
use crate::{
    ApiError,
    extract::{JsonBody, Limited},
};

/// The largest description of a client, bytes.
const MAX_BYTES: usize = 64 * 1024;

/// The client is registered.
pub(super) async fn register(
    State(core): State<Arc<Core>>,
    _limited: Limited<5>,
    body: Result<JsonBody<ClientMetadata, MAX_BYTES>, ApiError>,
) -> Result<Response, OAuthRefusal> {
    core.check_oauth_enabled()?;
    let JsonBody(metadata) = body.map_err(|refused| match refused.0 {
        error @ Error::TooLarge(_) => OAuthError::Core(error),
        error => OAuthError::refused("invalid_client_metadata", error.to_string()),
    })?;
    let registered = core.register_client(metadata).await?;
    Ok(unstored((StatusCode::CREATED, Json(registered)).into_response()))
}

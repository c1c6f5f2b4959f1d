//! The OAuth 2.0 API's endpoints for clients; the pages for people are in [`account`](crate::account).
//!
//! SPEC: v1.19 Client-Server API, "OAuth 2.0 API".

mod device;
mod metadata;
mod register;
mod rendezvous;
mod revoke;
mod token;

use axum::{
    Json, Router,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http::{HeaderValue, StatusCode, header};
use matron_core::{Error, oauth::OAuthError};
use serde_json::json;

use crate::{
    ApiError, AppState,
    routing::{Routes, V1},
};

/// The routes of this part.
pub fn routes() -> Router<AppState> {
    Router::new()
        .client(V1, "/auth_metadata", get(metadata::metadata))
        // MSC: 2965, as clients asked before it was merged.
        .client(&["unstable"], "/org.matrix.msc2965/auth_metadata", get(metadata::metadata))
        .client(&["unstable"], "/org.matrix.msc2965/auth_issuer", get(metadata::issuer))
        .route("/.well-known/openid-configuration", get(metadata::metadata))
        .route("/.well-known/oauth-authorization-server", get(metadata::metadata))
        .route("/oauth2/keys.json", get(metadata::keys))
        .route("/oauth2/register", post(register::register))
        .route("/oauth2/token", post(token::token))
        .route("/oauth2/revoke", post(revoke::revoke))
        .route("/oauth2/device", post(device::device))
        .merge(rendezvous::routes())
}

/// A refusal in OAuth's form.
#[derive(Debug)]
pub(crate) struct OAuthRefusal(OAuthError);

impl<E: Into<OAuthError>> From<E> for OAuthRefusal {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

/// SPEC: RFC 6749, section 5.2.
fn status_of(code: &str) -> StatusCode {
    match code {
        "invalid_client" => StatusCode::UNAUTHORIZED,
        "temporarily_unavailable" => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::BAD_REQUEST,
    }
}

impl IntoResponse for OAuthRefusal {
    fn into_response(self) -> Response {
        let (status, code, description) = match self.0 {
            OAuthError::Refused(refusal) => (status_of(refusal.code), refusal.code, refusal.description.into_owned()),
            OAuthError::Core(error @ (Error::Unrecognized | Error::LimitExceeded { .. })) => {
                return ApiError(error).into_response();
            }
            OAuthError::Core(error) => {
                let (status, sentence) = crate::error::status_and_sentence(&error);
                let code = if status.is_server_error() { "server_error" } else { "invalid_request" };
                (status, code, sentence)
            }
        };
        unstored((status, Json(json!({ "error": code, "error_description": description }))).into_response())
    }
}

/// The answer, which nobody on its way may keep.
fn unstored(mut response: Response) -> Response {
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response.headers_mut().insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
    response
}

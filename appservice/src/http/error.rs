//! Errors in Matrix's form.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;
use thiserror::Error;

/// Why a request was refused.
#[derive(Debug, Error)]
pub enum ApiError {
    /// 401 `M_MISSING_TOKEN`.
    #[error("No bearer token was given.")]
    MissingToken,
    /// 403 `M_FORBIDDEN`.
    #[error("The token is not the one that was agreed.")]
    Forbidden,
    /// 404 `M_NOT_FOUND`.
    #[error("There is no such id here.")]
    NotFound,
    /// 404 `M_UNRECOGNIZED`.
    #[error("There is no such endpoint.")]
    Unrecognized,
    /// 405 `M_UNRECOGNIZED`.
    #[error("The endpoint does not know this method.")]
    Method,
    /// 400 `M_BAD_JSON`.
    #[error("The body is not the JSON that this endpoint takes.")]
    BadJson,
    /// 413 `M_TOO_LARGE`.
    #[error("The body is too large.")]
    TooLarge,
    /// 503 `M_LIMIT_EXCEEDED`.
    #[error("The application service is busy; try again.")]
    Busy,
    /// 503 `M_UNKNOWN`.
    #[error("The federation register cannot be used now; no room can be bounded.")]
    Register,
    /// 400 `M_INVALID_PARAM`, with what is wrong.
    #[error("{0}")]
    Invalid(&'static str),
    /// 502 `M_UNKNOWN`.
    #[error("The homeserver refused or could not be reached ({errcode}).")]
    Homeserver {
        /// What the homeserver said.
        errcode: String,
    },
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, errcode) = match &self {
            Self::MissingToken => (StatusCode::UNAUTHORIZED, "M_MISSING_TOKEN"),
            Self::Forbidden => (StatusCode::FORBIDDEN, "M_FORBIDDEN"),
            Self::NotFound => (StatusCode::NOT_FOUND, "M_NOT_FOUND"),
            Self::Unrecognized => (StatusCode::NOT_FOUND, "M_UNRECOGNIZED"),
            Self::Method => (StatusCode::METHOD_NOT_ALLOWED, "M_UNRECOGNIZED"),
            Self::BadJson => (StatusCode::BAD_REQUEST, "M_BAD_JSON"),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "M_TOO_LARGE"),
            Self::Busy => (StatusCode::SERVICE_UNAVAILABLE, "M_LIMIT_EXCEEDED"),
            Self::Register => (StatusCode::SERVICE_UNAVAILABLE, "M_UNKNOWN"),
            Self::Invalid(_) => (StatusCode::BAD_REQUEST, "M_INVALID_PARAM"),
            Self::Homeserver { .. } => (StatusCode::BAD_GATEWAY, "M_UNKNOWN"),
        };
        let body = Json(json!({"errcode": errcode, "error": self.to_string()}));
        (status, body).into_response()
    }
}

impl From<axum::extract::rejection::BytesRejection> for ApiError {
    fn from(rejection: axum::extract::rejection::BytesRejection) -> Self {
        if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE { Self::TooLarge } else { Self::BadJson }
    }
}

pub(super) async fn not_found() -> ApiError {
    ApiError::Unrecognized
}

pub(super) async fn method_not_allowed() -> ApiError {
    ApiError::Method
}

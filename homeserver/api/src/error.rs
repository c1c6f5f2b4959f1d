//! Every refusal as status, errcode and a sentence; nothing internal leaves.

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header::RETRY_AFTER};
use matron_core::Error;
use serde::Serialize;
use serde_json::{Map, Value};

/// What a handler gives: JSON, or a Matrix error.
pub type Answer<T = Value> = Result<Json<T>, ApiError>;

/// `{}`.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Empty {}

/// The answer `{}` with status 200.
///
/// # Errors
/// Never; the type is that of a handler.
pub fn empty() -> Answer<Empty> {
    Ok(Json(Empty {}))
}

/// A refusal on its way out.
#[derive(Debug)]
pub struct ApiError(pub Error);

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

/// Status, errcode and extra fields of a refusal.
struct Parts {
    status: StatusCode,
    errcode: &'static str,
    extra: Map<String, Value>,
    retry_after_ms: Option<u64>,
}

impl Parts {
    fn new(status: StatusCode, errcode: &'static str) -> Self {
        Self { status, errcode, extra: Map::new(), retry_after_ms: None }
    }

    fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.extra.insert(name.to_owned(), value.into());
        self
    }

    fn retry_after(mut self, ms: u64) -> Self {
        self.retry_after_ms = Some(ms);
        self.with("retry_after_ms", ms)
    }
}

/// How long a client waits before it asks again for what policy could not decide, ms.
const UNDETERMINED_RETRY_MS: u64 = 5_000;

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let error = match self.0 {
            Error::Interactive(value) => return (StatusCode::UNAUTHORIZED, Json(*value)).into_response(),
            Error::PeerAnswer { status, body } => {
                let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
                return (status, Json(*body)).into_response();
            }
            error => error,
        };
        let parts = parts(&error);
        if parts.status.is_server_error() {
            log_failure(&error, parts.status);
        }
        let mut body = parts.extra;
        body.insert("errcode".to_owned(), parts.errcode.into());
        body.insert("error".to_owned(), sentence(&error).into());
        let mut response = (parts.status, Json(Value::Object(body))).into_response();
        if let Some(ms) = parts.retry_after_ms {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(ms.div_ceil(1000).max(1)));
        }
        response
    }
}

/// Status and sentence of a refusal, for answers that are no Matrix errors; a failure is logged.
pub(crate) fn status_and_sentence(error: &Error) -> (StatusCode, String) {
    let status = parts(error).status;
    if status.is_server_error() {
        log_failure(error, status);
    }
    (status, sentence(error))
}

/// What the caller may read. Texts of internal failures stay in the log.
fn sentence(error: &Error) -> String {
    match error {
        Error::Store(store) if is_full(store) => "the server's disk is full".to_owned(),
        Error::Store(_) | Error::Internal(_) => "the server failed to answer; the failure was logged".to_owned(),
        error => error.to_string(),
    }
}

fn is_full(error: &matron_core::error::StoreError) -> bool {
    matches!(error, matron_core::error::StoreError::Full)
}

/// A failure is logged once, here, where it is answered.
fn log_failure(error: &Error, status: StatusCode) {
    use std::error::Error as _;
    let mut cause = String::new();
    let mut next = error.source();
    while let Some(source) = next {
        cause.push_str(": ");
        cause.push_str(&source.to_string());
        next = source.source();
    }
    match error {
        // Another server's failure, which any user can provoke: nothing that an operator must look at.
        Error::Peer(_) => tracing::info!(status = status.as_u16(), "{error}{cause}"),
        _ => tracing::error!(status = status.as_u16(), "{error}{cause}"),
    }
}

/// The exhaustive table: one arm per refusal.
fn parts(error: &Error) -> Parts {
    use StatusCode as S;
    let (status, errcode) = match error {
        Error::Forbidden(_) => (S::FORBIDDEN, "M_FORBIDDEN"),
        Error::PolicyDenied { decision_id, .. } => {
            return Parts::new(S::FORBIDDEN, "M_FORBIDDEN").with("org.matron.decision_id", decision_id.as_str());
        }
        Error::PolicyUndetermined { decision_id, .. } => {
            return Parts::new(S::SERVICE_UNAVAILABLE, "M_UNKNOWN")
                .with("org.matron.decision_id", decision_id.as_str())
                .retry_after(UNDETERMINED_RETRY_MS);
        }
        Error::MissingToken => (S::UNAUTHORIZED, "M_MISSING_TOKEN"),
        Error::UnknownToken { soft_logout } => {
            return Parts::new(S::UNAUTHORIZED, "M_UNKNOWN_TOKEN").with("soft_logout", *soft_logout);
        }
        Error::Unauthorized(_) => (S::UNAUTHORIZED, "M_UNAUTHORIZED"),
        Error::NotFound(_) => (S::NOT_FOUND, "M_NOT_FOUND"),
        Error::Unrecognized => (S::NOT_FOUND, "M_UNRECOGNIZED"),
        Error::BadJson(_) => (S::BAD_REQUEST, "M_BAD_JSON"),
        Error::NotJson => (S::BAD_REQUEST, "M_NOT_JSON"),
        Error::MissingParam(_) => (S::BAD_REQUEST, "M_MISSING_PARAM"),
        Error::InvalidParam(_) => (S::BAD_REQUEST, "M_INVALID_PARAM"),
        Error::Unknown(_) => (S::BAD_REQUEST, "M_UNKNOWN"),
        Error::TooLarge(_) => (S::PAYLOAD_TOO_LARGE, "M_TOO_LARGE"),
        Error::LimitExceeded { retry_after_ms } => {
            return Parts::new(S::TOO_MANY_REQUESTS, "M_LIMIT_EXCEEDED").retry_after(*retry_after_ms);
        }
        Error::UserInUse => (S::BAD_REQUEST, "M_USER_IN_USE"),
        Error::InvalidUsername(_) => (S::BAD_REQUEST, "M_INVALID_USERNAME"),
        Error::Exclusive(_) => (S::BAD_REQUEST, "M_EXCLUSIVE"),
        Error::WeakPassword(_) => (S::BAD_REQUEST, "M_WEAK_PASSWORD"),
        Error::UserDeactivated => (S::FORBIDDEN, "M_USER_DEACTIVATED"),
        Error::UserLocked => return Parts::new(S::UNAUTHORIZED, "M_USER_LOCKED").with("soft_logout", true),
        Error::UserSuspended => (S::FORBIDDEN, "M_USER_SUSPENDED"),
        Error::GuestForbidden => (S::FORBIDDEN, "M_GUEST_ACCESS_FORBIDDEN"),
        Error::RoomInUse => (S::BAD_REQUEST, "M_ROOM_IN_USE"),
        Error::InvalidRoomState(_) => (S::BAD_REQUEST, "M_INVALID_ROOM_STATE"),
        Error::UnsupportedRoomVersion => (S::BAD_REQUEST, "M_UNSUPPORTED_ROOM_VERSION"),
        Error::IncompatibleRoomVersion { room_version } => {
            return Parts::new(S::BAD_REQUEST, "M_INCOMPATIBLE_ROOM_VERSION")
                .with("room_version", room_version.as_str());
        }
        Error::BadState(_) => (S::FORBIDDEN, "M_BAD_STATE"),
        Error::BadAlias(_) => (S::BAD_REQUEST, "M_BAD_ALIAS"),
        Error::UnableToAuthoriseJoin(_) => (S::BAD_REQUEST, "M_UNABLE_TO_AUTHORISE_JOIN"),
        Error::UnableToGrantJoin(_) => (S::BAD_REQUEST, "M_UNABLE_TO_GRANT_JOIN"),
        Error::WrongRoomKeysVersion { current_version } => {
            return Parts::new(S::FORBIDDEN, "M_WRONG_ROOM_KEYS_VERSION")
                .with("current_version", current_version.as_str());
        }
        Error::NotYetUploaded => (S::GATEWAY_TIMEOUT, "M_NOT_YET_UPLOADED"),
        Error::CannotOverwriteMedia => (S::CONFLICT, "M_CANNOT_OVERWRITE_MEDIA"),
        Error::DuplicateAnnotation => (S::BAD_REQUEST, "M_DUPLICATE_ANNOTATION"),
        Error::UnknownPos => (S::BAD_REQUEST, "M_UNKNOWN_POS"),
        Error::Custom { status, errcode, .. } => {
            (StatusCode::from_u16(*status).unwrap_or(S::INTERNAL_SERVER_ERROR), *errcode)
        }
        Error::Peer(_) => (S::BAD_GATEWAY, "M_UNKNOWN"),
        // Answered before the table is asked.
        Error::Interactive(_) | Error::PeerAnswer { .. } => (S::INTERNAL_SERVER_ERROR, "M_UNKNOWN"),
        Error::Store(error) if is_full(error) => (S::INSUFFICIENT_STORAGE, "M_RESOURCE_LIMIT_EXCEEDED"),
        Error::Store(_) | Error::Internal(_) => (S::INTERNAL_SERVER_ERROR, "M_UNKNOWN"),
    };
    Parts::new(status, errcode)
}

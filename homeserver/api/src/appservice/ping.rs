//! `POST /_matrix/client/v1/appservice/{appserviceId}/ping`.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use http::StatusCode;
use matron_core::{Core, appservices::PingError};
use serde::Deserialize;
use serde_json::json;

use crate::{
    ApiError,
    extract::{Auth, JsonOrEmpty, PathArgs},
};

#[derive(Deserialize)]
pub(super) struct Body {
    transaction_id: Option<String>,
}

/// The application service was reached.
pub(super) async fn ping(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    PathArgs(id): PathArgs<String>,
    JsonOrEmpty(body): JsonOrEmpty<Body>,
) -> Response {
    match core.ping_appservice(&requester, &id, body.transaction_id.as_deref()).await {
        Ok(duration_ms) => Json(json!({ "duration_ms": duration_ms })).into_response(),
        Err(PingError::Refused(error)) => ApiError(error).into_response(),
        Err(PingError::BadStatus { status, body }) => {
            let error = "the application service did not answer with a success";
            let answer = json!({ "errcode": "M_BAD_STATUS", "error": error, "status": status, "body": body });
            (StatusCode::BAD_GATEWAY, Json(answer)).into_response()
        }
    }
}

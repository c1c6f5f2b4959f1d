//! What operators ask of Matron. One router answers it: the running server serves it on a socket in its data
//! directory; when no server runs, the command opens the data itself and asks the same router in its own process.

mod accounts;
mod audit;
pub(crate) mod backup;
mod client;
mod federation;
mod governance;
pub(crate) mod manifest;
mod policy;
pub(crate) mod socket;

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, State},
    response::{IntoResponse, Response},
    routing::get,
};
use http::StatusCode;
use matron_core::Core;
use serde_json::{Value, json};

pub(crate) use client::{Client, OperatorError};

/// The largest request of an operator, bytes.
const MAX_BODY: usize = 4 * 1024 * 1024;

/// What every operator's request can reach.
#[derive(Clone)]
pub(crate) struct House {
    core: Arc<Core>,
    config: Arc<crate::config::Config>,
}

/// All of `/_matron/operator/v1/`.
pub(crate) fn router(core: Arc<Core>, config: Arc<crate::config::Config>) -> Router {
    let routes = Router::new()
        .route("/status", get(status))
        .merge(accounts::routes())
        .merge(audit::routes())
        .merge(backup::routes())
        .merge(federation::routes())
        .merge(governance::routes())
        .merge(policy::routes());
    Router::new()
        .nest("/_matron/operator/v1", routes)
        .fallback(|| async { Refused::not_found("this version of Matron knows no such command") })
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(House { core, config })
}

async fn status(State(house): State<House>) -> Json<Value> {
    Json(json!({
        "server_name": house.core.server_name,
        "engine": house.core.store.engine(),
        "position": house.core.position().0,
        "version": env!("CARGO_PKG_VERSION"),
    }))
}

/// A refusal, as one sentence.
pub(crate) struct Refused(StatusCode, String);

impl Refused {
    fn not_found(sentence: impl Into<String>) -> Self {
        Self(StatusCode::NOT_FOUND, sentence.into())
    }

    fn bad(sentence: impl Into<String>) -> Self {
        Self(StatusCode::BAD_REQUEST, sentence.into())
    }
}

impl From<matron_core::Error> for Refused {
    fn from(error: matron_core::Error) -> Self {
        Self(StatusCode::CONFLICT, error.to_string())
    }
}

impl From<matron_storage::StoreError> for Refused {
    fn from(error: matron_storage::StoreError) -> Self {
        Self(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.0, Json(json!({ "error": self.1 }))).into_response()
    }
}

/// What a handler answers.
type Answer = Result<Json<Value>, Refused>;

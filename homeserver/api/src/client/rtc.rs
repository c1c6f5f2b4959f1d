//! `GET /_matrix/client/v1/rtc/transports` and its unstable form (MSC4143)

use std::sync::Arc;

use axum::{Json, Router, extract::State, routing::get};
use matron_core::Core;
use serde_json::json;

use crate::{Answer, AppState, extract::Auth, routing::Routes};

/// The routes of this area.
pub(super) fn routes() -> Router<AppState> {
    Router::new().client(&["v1", "unstable/org.matrix.msc4143"], "/rtc/transports", get(transports))
}

/// Answers over what calls can go, as the operator configured it.
///
/// # Errors
/// None of its own.
async fn transports(State(core): State<Arc<Core>>, Auth(_): Auth) -> Answer {
    Ok(Json(json!({ "rtc_transports": core.settings.rtc_transports })))
}

//! `GET /_matrix/federation/v1/openid/userinfo`
//!
//! Spec: <https://spec.matrix.org/v1.19/server-server-api/#openid>.

use std::sync::Arc;

use axum::{Json, Router, extract::State, routing::get};
use matron_core::Core;
use serde::Deserialize;
use serde_json::json;

use crate::{Answer, AppState, extract::Query};

/// The routes of this file.
pub(super) fn routes() -> Router<AppState> {
    Router::new().route("/_matrix/federation/v1/openid/userinfo", get(userinfo))
}

#[derive(Deserialize)]
struct Token {
    access_token: String,
}

/// Whoever was shown the token may ask; there is no other authentication.
async fn userinfo(State(core): State<Arc<Core>>, Query(token): Query<Token>) -> Answer {
    Ok(Json(json!({"sub": core.openid_userinfo(&token.access_token)?})))
}

//! `GET` and `POST /_matrix/client/v3/login`.

use std::sync::Arc;

use axum::{Json, extract::State};
use matron_core::{
    Core, Error,
    accounts::{LoggedIn, Login},
};
use serde_json::{Value, json};

use crate::{
    Answer, AppState,
    extract::{JsonBody, Shown},
};

/// How much of the budget for guessing one user's password each try takes.
const GUESS_COST: f64 = 10.0;

/// The ways to log in.
pub(super) async fn flows(State(core): State<Arc<Core>>) -> Answer {
    let mut flows: Vec<Value> =
        vec![json!({ "type": "m.login.password" }), json!({ "type": "m.login.token", "get_login_token": true })];
    if !core.appservices.services.is_empty() {
        flows.push(json!({ "type": "m.login.application_service" }));
    }
    Ok(Json(json!({ "flows": flows })))
}

/// A session on a device.
pub(super) async fn log_in(
    State(state): State<AppState>,
    shown: Shown,
    JsonBody(login): JsonBody<Login>,
) -> Answer<LoggedIn> {
    if login.kind == "m.login.application_service" && shown.appservice.is_none() && shown.token_given {
        return Err(Error::UnknownToken { soft_logout: false }.into());
    }
    if login.kind == "m.login.password" {
        let named = login.identifier.as_ref().and_then(|identifier| identifier.user.as_ref()).or(login.user.as_ref());
        let key = format!("password of {}", named.map(|name| name.to_lowercase()).unwrap_or_default());
        state.limiter.take(&key, GUESS_COST, state.core.now_ms())?;
    }
    Ok(Json(state.core.log_in(login, shown.appservice.as_deref()).await?))
}

//! `GET /_matrix/client/v1/register/m.login.registration_token/validity`.

use std::sync::Arc;

use axum::{Json, extract::State};
use matron_core::{Core, Error, settings::RegistrationMode};
use serde::Deserialize;
use serde_json::json;

use crate::{
    Answer,
    extract::{Query, Shown},
};

#[derive(Deserialize)]
pub(super) struct Params {
    token: String,
}

/// Whether somebody could register with the token now.
pub(super) async fn validity(State(core): State<Arc<Core>>, _limited: Shown, Query(params): Query<Params>) -> Answer {
    if core.settings.registration.mode == RegistrationMode::Closed {
        return Err(Error::forbidden("registration is closed").into());
    }
    Ok(Json(json!({ "valid": core.registration_token_is_valid(&params.token)? })))
}

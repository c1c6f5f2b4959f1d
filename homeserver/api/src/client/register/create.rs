//! `POST /_matrix/client/v3/register`.

use std::sync::Arc;

use axum::{Json, extract::State};
use matron_core::{
    Core, Error,
    accounts::{Register, Registered},
};
use serde::Deserialize;

use crate::{
    Answer,
    extract::{JsonOrEmpty, Query, Shown},
};

#[derive(Deserialize)]
pub(super) struct Params {
    kind: Option<String>,
}

/// An account, and unless refused a session.
pub(super) async fn register(
    State(core): State<Arc<Core>>,
    shown: Shown,
    Query(params): Query<Params>,
    JsonOrEmpty(body): JsonOrEmpty<Register>,
) -> Answer<Registered> {
    let by_appservice = body.kind.as_deref() == Some("m.login.application_service");
    if by_appservice && shown.appservice.is_none() && shown.token_given {
        return Err(Error::UnknownToken { soft_logout: false }.into());
    }
    match params.kind.as_deref() {
        Some("guest") => Ok(Json(core.register_guest(body.initial_device_display_name).await?)),
        None | Some("user") => Ok(Json(core.register(body, shown.appservice.as_deref()).await?)),
        Some(_) => Err(Error::invalid("`kind` is `user` or `guest`").into()),
    }
}

//! `POST /_matrix/client/v3/account/password`.

use std::sync::Arc;

use axum::extract::State;
use matron_core::Core;
use serde::Deserialize;
use serde_json::Value;

use crate::{
    Answer, Empty, empty,
    extract::{Auth, JsonBody},
};

#[derive(Deserialize)]
pub(super) struct Body {
    new_password: String,
    #[serde(default = "yes")]
    logout_devices: bool,
    auth: Option<Value>,
}

fn yes() -> bool {
    true
}

/// The password is another; other sessions are gone unless they may stay.
pub(super) async fn change(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    JsonBody(body): JsonBody<Body>,
) -> Answer<Empty> {
    core.change_password(&requester, &body.new_password, body.logout_devices, body.auth.as_ref()).await?;
    empty()
}

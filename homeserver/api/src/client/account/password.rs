//! `POST /_matrix/client/v3/account/password`.

use std::sync::Arc;

use axum::extract::State;
use matron_core::Core;
use serde::Deserialize;
use serde_json::Value;

use crate::{
    Answer, Empty, empty,
    extract::{JsonBody, OptionalAuth},
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

/// The password is another, by who is signed in or by who has the account's e-mail address; other sessions are gone unless they may stay.
pub(super) async fn change(
    State(core): State<Arc<Core>>,
    OptionalAuth(requester): OptionalAuth,
    JsonBody(body): JsonBody<Body>,
) -> Answer<Empty> {
    let auth = body.auth.as_ref();
    match requester {
        Some(requester) => core.change_password(&requester, &body.new_password, body.logout_devices, auth).await?,
        None => core.replace_lost_password(&body.new_password, body.logout_devices, auth).await?,
    }
    empty()
}

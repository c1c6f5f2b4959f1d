//! `POST /_matrix/client/v3/account/deactivate`.

use std::sync::Arc;

use axum::{Json, extract::State};
use matron_core::Core;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    Answer,
    extract::{Auth, JsonOrEmpty},
};

#[derive(Deserialize)]
pub(super) struct Body {
    #[serde(default)]
    erase: bool,
    id_server: Option<String>,
    auth: Option<Value>,
}

/// The account is closed for good.
pub(super) async fn deactivate(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    JsonOrEmpty(body): JsonOrEmpty<Body>,
) -> Answer {
    let id_server = body.id_server.as_deref();
    let unbound = core.deactivate_own(&requester, body.erase, id_server, body.auth.as_ref()).await?;
    Ok(Json(json!({ "id_server_unbind_result": unbound.as_str() })))
}

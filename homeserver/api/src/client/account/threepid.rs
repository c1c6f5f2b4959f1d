//! `/_matrix/client/v3/account/3pid…`: e-mail addresses and telephone numbers, bound by operators only.

use std::sync::Arc;

use axum::{Json, extract::State};
use matron_core::{Core, Error};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    Answer,
    extract::{Auth, JsonBody},
};

#[derive(Deserialize)]
pub(super) struct Body {
    medium: String,
    address: String,
}

fn not_offered() -> Error {
    Error::Custom {
        status: 400,
        errcode: "M_THREEPID_MEDIUM_NOT_SUPPORTED",
        message: "this server does not validate e-mail addresses or telephone numbers".into(),
    }
}

/// What is bound to the user.
pub(super) async fn list(State(core): State<Arc<Core>>, Auth(requester): Auth) -> Answer {
    Ok(Json(json!({ "threepids": core.threepids(&requester.user_id)? })))
}

/// Binding needs validation, which is not offered.
pub(super) async fn unsupported(_requester: Auth, JsonBody(_body): JsonBody<Value>) -> Answer {
    Err(not_offered().into())
}

/// Validation is not offered.
pub(super) async fn request_token(JsonBody(_body): JsonBody<Value>) -> Answer {
    Err(not_offered().into())
}

/// It is bound to the user no longer.
pub(super) async fn delete(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    JsonBody(body): JsonBody<Body>,
) -> Answer {
    core.remove_threepid(&requester.user_id, &body.medium, &body.address).await?;
    Ok(Json(json!({ "id_server_unbind_result": "no-support" })))
}

/// No identity server is ever told anything, so there is nothing to take back.
pub(super) async fn unbind(_requester: Auth, JsonBody(_body): JsonBody<Body>) -> Answer {
    Ok(Json(json!({ "id_server_unbind_result": "no-support" })))
}

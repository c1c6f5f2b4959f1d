//! `/_matrix/client/v3/account/3pid…`: e-mail addresses and telephone numbers. Operators give them to accounts; users have
//! them bound at identity servers.

use std::sync::Arc;

use axum::{Json, extract::State};
use matron_core::{Core, Error, identity::IdentityCredentials};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    Answer, Empty, empty,
    extract::{Auth, JsonBody},
};

#[derive(Deserialize)]
pub(super) struct Body {
    medium: String,
    address: String,
    id_server: Option<String>,
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

/// The address of a session with an identity server is bound there to the user.
pub(super) async fn bind(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    JsonBody(body): JsonBody<IdentityCredentials>,
) -> Answer<Empty> {
    core.check_not_guest(&requester)?;
    core.bind_at_identity_server(&requester.user_id, &body).await?;
    empty()
}

/// It belongs to the account no longer, and is bound at no identity server, as far as that can be had.
pub(super) async fn delete(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    JsonBody(body): JsonBody<Body>,
) -> Answer {
    core.remove_threepid(&requester.user_id, &body.medium, &body.address).await?;
    let id_server = body.id_server.as_deref();
    let unbound = core.try_to_unbind(&requester.user_id, &body.medium, &body.address, id_server).await;
    Ok(Json(json!({ "id_server_unbind_result": unbound.as_str() })))
}

/// It is bound at the identity server no longer.
pub(super) async fn unbind(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    JsonBody(body): JsonBody<Body>,
) -> Answer {
    let id_server = body.id_server.as_deref();
    let user = &requester.user_id;
    let unbound = core.unbind_at_identity_server(user, &body.medium, &body.address, id_server).await?;
    Ok(Json(json!({ "id_server_unbind_result": unbound.as_str() })))
}

//! `/_matrix/client/v3/account/3pid…`: e-mail addresses and telephone numbers. People prove to have an
//! address by a letter, operators give theirs to accounts, and identity servers make people found by them.

use std::sync::Arc;

use axum::{Json, extract::State};
use matron_core::{
    Core, Requester,
    accounts::email::{EmailCredentials, EmailRequest, Purpose, not_supported},
    identity::IdentityCredentials,
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    Answer, Empty, empty,
    extract::{Auth, JsonBody, Limited, OptionalAuth},
};

#[derive(Deserialize)]
pub(super) struct Body {
    medium: String,
    address: String,
    id_server: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct Add {
    #[serde(flatten)]
    credentials: EmailCredentials,
    auth: Option<Value>,
}

#[derive(Deserialize)]
pub(super) struct AddByTokenAlone {
    #[serde(alias = "threePidCreds")]
    three_pid_creds: EmailCredentials,
}

/// What is bound to the user.
pub(super) async fn list(State(core): State<Arc<Core>>, Auth(requester): Auth) -> Answer {
    Ok(Json(json!({ "threepids": core.threepids(&requester.user_id)? })))
}

/// The address of a session with this server belongs to the account.
pub(super) async fn add(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    JsonBody(body): JsonBody<Add>,
) -> Answer<Empty> {
    core.add_email(&requester, &body.credentials, body.auth.as_ref()).await?;
    empty()
}

/// As [`add`], without interactive proof, and good for less.
pub(super) async fn add_by_token_alone(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    JsonBody(body): JsonBody<AddByTokenAlone>,
) -> Answer<Empty> {
    core.add_email_unconfirmed(&requester, &body.three_pid_creds).await?;
    empty()
}

async fn write(core: &Core, asker: Option<&Requester>, purpose: Purpose, request: &EmailRequest) -> Answer {
    Ok(Json(json!({ "sid": core.request_email_proof(asker, purpose, request).await? })))
}

/// A letter is on its way to an address that is to belong to an account.
pub(super) async fn write_to_add(
    State(core): State<Arc<Core>>,
    _limited: Limited<10>,
    OptionalAuth(asker): OptionalAuth,
    JsonBody(body): JsonBody<EmailRequest>,
) -> Answer {
    write(&core, asker.as_ref(), Purpose::Add, &body).await
}

/// A letter is on its way to the address of somebody who wants an account.
pub(super) async fn write_to_register(
    State(core): State<Arc<Core>>,
    _limited: Limited<10>,
    JsonBody(body): JsonBody<EmailRequest>,
) -> Answer {
    write(&core, None, Purpose::Register, &body).await
}

/// A letter is on its way to the address of somebody who has lost a password.
pub(super) async fn write_to_reset(
    State(core): State<Arc<Core>>,
    _limited: Limited<10>,
    JsonBody(body): JsonBody<EmailRequest>,
) -> Answer {
    write(&core, None, Purpose::Password, &body).await
}

/// Nobody is called.
pub(super) async fn call(JsonBody(_body): JsonBody<Value>) -> Answer {
    Err(not_supported().into())
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

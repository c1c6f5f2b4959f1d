//! `POST /_matrix/client/v3/user/{userId}/openid/request_token` and `GET /_matrix/federation/v1/openid/userinfo`.

use std::sync::Arc;

use axum::{Json, extract::State};
use matron_core::{Core, Error, accounts::OpenIdToken};
use ruma::OwnedUserId;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    Answer,
    extract::{Auth, JsonOrEmpty, PathArgs, Query, Shown},
};

#[derive(Deserialize)]
pub(super) struct Params {
    access_token: Option<String>,
}

/// A token with which a third party can ask us who this is.
pub(super) async fn request_token(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    PathArgs(user): PathArgs<OwnedUserId>,
    JsonOrEmpty(_body): JsonOrEmpty<Value>,
) -> Answer<OpenIdToken> {
    Ok(Json(core.create_openid_token(&requester, &user).await?))
}

/// Whom the token proves.
pub(super) async fn userinfo(State(core): State<Arc<Core>>, _limited: Shown, Query(params): Query<Params>) -> Answer {
    let token = params.access_token.ok_or(Error::MissingToken)?;
    Ok(Json(json!({ "sub": core.openid_userinfo(&token)? })))
}

//! `GET /.well-known/matrix/{client,server,support,policy_server}`.

use std::sync::Arc;

use axum::{Json, extract::State};
use matron_core::{Core, Error};
use serde_json::json;

use crate::Answer;

/// Where clients find this server.
pub(super) async fn client(State(core): State<Arc<Core>>) -> Answer {
    let base_url = core.settings.public_base_url.clone().unwrap_or_else(|| format!("https://{}", core.server_name));
    let mut answer = json!({ "m.homeserver": { "base_url": base_url } });
    if let (true, Some(answer)) = (core.settings.oauth.enabled, answer.as_object_mut()) {
        // MSC: 2965, as clients looked before `auth_metadata`.
        let issuer = format!("{}/", core.public_base());
        let there = json!({ "issuer": issuer, "account": core.account_management_url(None) });
        answer.insert("org.matrix.msc2965.authentication".to_owned(), there);
    }
    if let (false, Some(answer)) = (core.settings.rtc_transports.is_empty(), answer.as_object_mut()) {
        // MSC: 4143.
        answer.insert("org.matrix.msc4143.rtc_foci".to_owned(), json!(core.settings.rtc_transports));
    }
    Ok(Json(answer))
}

/// Where servers find this server.
pub(super) async fn server(State(core): State<Arc<Core>>) -> Answer {
    let server = core.settings.well_known_server.clone();
    let server = server.ok_or_else(|| Error::not_found("this server delegates to no other name"))?;
    Ok(Json(json!({ "m.server": server })))
}

/// The key with which this server signs as a policy server.
pub(super) async fn policy_server(State(core): State<Arc<Core>>) -> Answer {
    if !core.settings.federation {
        return Err(Error::not_found("this server is no policy server").into());
    }
    Ok(Json(json!({ "public_keys": { "ed25519": core.policy_server.public_key() } })))
}

/// Whom to ask for help.
pub(super) async fn support(State(_core): State<Arc<Core>>) -> Answer {
    Err(Error::not_found("the operator has named no contact").into())
}

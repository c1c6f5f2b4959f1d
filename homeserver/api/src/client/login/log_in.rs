//! `GET` and `POST /_matrix/client/v3/login`.

use std::sync::Arc;

use axum::{Json, extract::State};
use matron_core::{
    Core, Error,
    accounts::{LoggedIn, Login},
};
use serde_json::{Value, json};

use crate::{
    Answer,
    extract::{JsonBody, Shown},
};

/// The ways to log in.
pub(super) async fn flows(State(core): State<Arc<Core>>) -> Answer {
    let mut flows: Vec<Value> =
        vec![json!({ "type": "m.login.password" }), json!({ "type": "m.login.token", "get_login_token": true })];
    if core.offers_sso() {
        let providers: Vec<Value> = core.settings.oauth.upstreams.iter().map(provider).collect();
        let preferred = core.settings.oauth.enabled;
        // MSC: 3824 before it was merged.
        let mut flow = json!({
            "type": "m.login.sso",
            "oauth_aware_preferred": preferred,
            "org.matrix.msc3824.delegated_oidc_compatibility": preferred,
        });
        if let (false, Some(flow)) = (providers.is_empty(), flow.as_object_mut()) {
            flow.insert("identity_providers".to_owned(), providers.into());
        }
        flows.push(flow);
    }
    if core.cas_provider().is_some() {
        // Deprecated; clients that know `m.login.sso` take that.
        flows.push(json!({ "type": "m.login.cas" }));
    }
    if !core.appservices.services.is_empty() {
        flows.push(json!({ "type": "m.login.application_service" }));
    }
    Ok(Json(json!({ "flows": flows })))
}

/// A provider as clients show it.
fn provider(upstream: &matron_core::settings::Upstream) -> Value {
    let mut provider = json!({ "id": upstream.id, "name": upstream.name });
    if let (Some(brand), Some(provider)) = (&upstream.brand, provider.as_object_mut()) {
        provider.insert("brand".to_owned(), brand.as_str().into());
    }
    provider
}

/// A session on a device.
pub(super) async fn log_in(
    State(core): State<Arc<Core>>,
    shown: Shown,
    JsonBody(login): JsonBody<Login>,
) -> Answer<LoggedIn> {
    if login.kind == "m.login.application_service" && shown.appservice.is_none() && shown.token_given {
        return Err(Error::UnknownToken { soft_logout: false }.into());
    }
    Ok(Json(core.log_in(login, shown.appservice.as_deref()).await?))
}

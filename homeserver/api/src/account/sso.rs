//! Single sign-on of the legacy API: `/_matrix/client/v3/login/sso/redirect` leads here, and from here back to the client.

use std::sync::Arc;

use axum::{extract::State, response::Response};
use matron_core::{Core, Error, oauth::SsoTarget};
use serde::Deserialize;

use super::{
    authorize::not_you,
    cas,
    html::{Page, PageError, encoded, esc, form_token_field, go_to},
    visit::{Posted, Visit, check_served},
};
use crate::extract::{PathArgs, Query};

#[derive(Deserialize)]
pub(super) struct Params {
    #[serde(rename = "redirectUrl")]
    pub(super) redirect_url: String,
    action: Option<String>,
    /// The provider that the client has chosen.
    idp: Option<String>,
    /// The provider must ask again who it is.
    again: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct Form {
    redirect_url: String,
}

/// `GET /_matrix/client/v3/login/sso/redirect`.
pub(super) async fn redirect(
    State(core): State<Arc<Core>>,
    visit: Visit,
    Query(params): Query<Params>,
) -> Result<Response, PageError> {
    if core.only_provider().is_some_and(|only| only.insecure_without_cookies) {
        return cas::to_cas(&core, &visit, &params.redirect_url);
    }
    to_pages(&core, &params, None)
}

/// `GET /_matrix/client/v3/login/sso/redirect/{idpId}`.
pub(super) async fn redirect_to_provider(
    State(core): State<Arc<Core>>,
    _visit: Visit,
    PathArgs(idp): PathArgs<String>,
    Query(params): Query<Params>,
) -> Result<Response, PageError> {
    if !core.settings.oauth.upstreams.iter().any(|upstream| upstream.id == idp) {
        return Err(Error::not_found("there is no such identity provider").into());
    }
    to_pages(&core, &params, Some(&idp))
}

pub(super) fn to_pages(core: &Arc<Core>, params: &Params, idp: Option<&str>) -> Result<Response, PageError> {
    check_served(core)?;
    let target = SsoTarget::parse(&params.redirect_url)?;
    let action = match params.action.as_deref() {
        Some("register") => "&action=register",
        _ => "",
    };
    let idp = idp.map(|idp| format!("&idp={}", encoded(idp))).unwrap_or_default();
    let mut response = go_to(&format!("/account/sso?redirectUrl={}{action}{idp}", encoded(target.as_str())))?;
    // The specification names this status here.
    *response.status_mut() = http::StatusCode::FOUND;
    Ok(response)
}

/// Whether the client may have the user's account; or first the sign-in.
pub(super) async fn ask(
    State(core): State<Arc<Core>>,
    visit: Visit,
    Query(params): Query<Params>,
    uri: http::Uri,
) -> Result<Response, PageError> {
    check_served(&core)?;
    let target = SsoTarget::parse(&params.redirect_url)?;
    let here = uri.path_and_query().map_or("/account/", |here| here.as_str());
    let Some(browser) = &visit.visitor.browser else {
        let chosen = params.idp.filter(|idp| core.settings.oauth.upstreams.iter().any(|known| known.id == *idp));
        let registers = params.action.as_deref() == Some("register");
        let only = || core.only_provider().filter(|_| !registers).map(|only| only.id.clone());
        if let Some(idp) = chosen.or_else(only) {
            let again = if params.again.is_some() { "&again=1" } else { "" };
            return go_to(&format!("/account/upstream/{}?next={}{again}", encoded(&idp), encoded(here)));
        }
        return Ok(visit.to_login(if registers { "register" } else { "login" }, false));
    };
    let form_token = visit.visitor.form_token();
    // Otherwise the provider, where they are signed in, would give the same account again.
    let other = if params.again.is_some() { here.to_owned() } else { format!("{here}&again=1") };
    let body = format!(
        "<p>You are signing in as <strong>{user}</strong> to</p><p class=\"target\"><strong>{target}</strong></p>\
         <p>It will be able to read and send your messages. Go on only if you trust it and came from there.</p>\
         <form method=\"post\" action=\"/account/sso\">{guard}\
         <input type=\"hidden\" name=\"redirect_url\" value=\"{url}\">\
         <button type=\"submit\">Continue</button></form>{other}",
        user = esc(browser.user_id.as_str()),
        target = esc(&target.shown()),
        guard = form_token_field(&form_token),
        url = esc(target.as_str()),
        other = not_you(&other, &form_token),
    );
    Ok(visit.answer(Page::new("Continue to your app?", body).may_go_to(target.source())))
}

/// The browser goes back to the client with a login token.
pub(super) async fn agree(
    State(core): State<Arc<Core>>,
    Posted { visit, form }: Posted<Form>,
) -> Result<Response, PageError> {
    check_served(&core)?;
    let target = SsoTarget::parse(&form.redirect_url)?;
    let browser = match visit.signed_in() {
        Ok(browser) => browser,
        Err(to_login) => return Ok(*to_login),
    };
    go_to(&core.grant_sso(&target, &browser.user_id).await?)
}

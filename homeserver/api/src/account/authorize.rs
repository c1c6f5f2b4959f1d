//! `/account/authorize`: the authorization endpoint, where a person lets a client in.

use std::sync::Arc;

use axum::{extract::State, response::Response};
use matron_core::{
    Core,
    oauth::{AuthorizationRequest, Authorized, Browser, Refusal, Wanted},
};
use serde::Deserialize;

use super::{
    html::{Page, PageError, esc, form_token_field, go_to},
    visit::{Posted, Visit},
};
use crate::extract::Query;

#[derive(Deserialize)]
pub(super) struct Form {
    #[serde(default)]
    decision: String,
}

/// The question, or first the sign-in.
pub(super) async fn ask(
    State(core): State<Arc<Core>>,
    visit: Visit,
    Query(request): Query<AuthorizationRequest>,
    uri: http::Uri,
) -> Result<Response, PageError> {
    let wanted = match core.read_authorization_request(&request)? {
        Authorized::Ask(wanted) => wanted,
        Authorized::Back(url) => return go_to(&url),
    };
    let refused =
        |code, sentence: &'static str| go_to(&wanted.refused(&Refusal { code, description: sentence.into() }));
    match &visit.visitor.browser {
        None if wanted.silent => refused("login_required", "nobody is signed in at this browser"),
        Some(_) if wanted.silent => refused("consent_required", "the user must agree"),
        None => Ok(visit.to_login(if wanted.create { "register" } else { "login" }, false)),
        Some(browser) => {
            let here = uri.path_and_query().map_or("/account/authorize", |here| here.as_str());
            let page = question(&core, &wanted, browser, here, &visit.visitor.form_token())?;
            Ok(visit.answer(page))
        }
    }
}

/// The browser goes back to the client, with a code or without.
pub(super) async fn decide(
    State(core): State<Arc<Core>>,
    Query(request): Query<AuthorizationRequest>,
    Posted { visit, form }: Posted<Form>,
) -> Result<Response, PageError> {
    let wanted = match core.read_authorization_request(&request)? {
        Authorized::Ask(wanted) => wanted,
        Authorized::Back(url) => return go_to(&url),
    };
    let browser = match visit.signed_in() {
        Ok(browser) => browser,
        Err(to_login) => return Ok(*to_login),
    };
    if form.decision == "allow" {
        return go_to(&core.grant_authorization(&wanted, &browser.user_id)?);
    }
    let refusal = Refusal { code: "access_denied", description: "the user has refused".into() };
    go_to(&wanted.refused(&refusal))
}

fn question(
    core: &Arc<Core>,
    wanted: &Wanted,
    browser: &Browser,
    here: &str,
    form_token: &str,
) -> Result<Page, PageError> {
    let known = core.find_device(&browser.user_id, &wanted.scope.device_id)?.is_some();
    let body = format!(
        "{about}<form method=\"post\" action=\"{here}\">{guard}\
         <button type=\"submit\" name=\"decision\" value=\"allow\">Allow</button>\
         <button type=\"submit\" name=\"decision\" value=\"deny\" class=\"quiet\">Refuse</button></form>{other}",
        about = about_client(&wanted.client, browser, wanted.scope.device_id.as_str(), known),
        here = esc(here),
        guard = form_token_field(form_token),
        other = not_you(here, form_token),
    );
    Ok(Page::new("Allow access to your account?", body).may_go_to(wanted.redirect_source()))
}

/// Who asks for what, for whom.
pub(super) fn about_client(
    client: &matron_core::oauth::Client,
    browser: &Browser,
    device: &str,
    known_device: bool,
) -> String {
    let link = |label: &str, uri: &Option<String>| {
        uri.as_ref().map_or_else(String::new, |uri| {
            format!("<li><a href=\"{}\" rel=\"noreferrer noopener\">{label}</a></li>", esc(uri))
        })
    };
    let replaced = if known_device {
        "<p class=\"error\">You have a session on this device already. It will be replaced.</p>"
    } else {
        ""
    };
    format!(
        "<p><strong>{name}</strong> ({host}) wants to use your account <strong>{user}</strong>.</p>\
         <p>It will be able to read and send your messages and see your rooms and contacts.</p>\
         <dl><dt>Device</dt><dd><code>{device}</code></dd></dl>{replaced}<ul>{terms}{policy}</ul>",
        name = esc(&client.shown_name()),
        host = esc(&client.host()),
        user = esc(browser.user_id.as_str()),
        device = esc(device),
        terms = link("Terms of service", &client.tos_uri),
        policy = link("Privacy policy", &client.policy_uri),
    )
}

/// The way to another account, and back here.
pub(super) fn not_you(here: &str, form_token: &str) -> String {
    format!(
        "<form method=\"post\" action=\"/account/logout\">{guard}\
         <input type=\"hidden\" name=\"next\" value=\"{here}\">\
         <button type=\"submit\" class=\"link\">Not you? Use another account</button></form>",
        guard = form_token_field(form_token),
        here = esc(here),
    )
}

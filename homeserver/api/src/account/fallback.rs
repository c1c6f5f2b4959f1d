//! `GET` and `POST /_matrix/client/v3/auth/{authType}/fallback/web`: a stage of interactive authentication, as a page.
//!
//! SPEC: v1.19 Client-Server API, "Fallback".

use std::sync::Arc;

use axum::{extract::State, response::Response};
use matron_core::{Core, Error, accounts::StageProof, oauth::CasErrand};
use serde::Deserialize;

use super::{
    html::{Page, PageError, captcha_field, encoded, esc, form_token_field},
    visit::{Posted, Visit},
};
use crate::extract::{PathArgs, Query};

const RECAPTCHA: &str = "m.login.recaptcha";

#[derive(Deserialize)]
pub(super) struct Params {
    session: String,
}

#[derive(Deserialize)]
pub(super) struct Form {
    password: Option<String>,
    token: Option<String>,
    #[serde(rename = "g-recaptcha-response")]
    captcha: Option<String>,
}

/// The stage's form.
pub(super) async fn show(
    State(core): State<Arc<Core>>,
    visit: Visit,
    PathArgs(kind): PathArgs<String>,
    Query(params): Query<Params>,
) -> Result<Response, PageError> {
    let user = core.user_of_uia_session(&params.session)?;
    if kind == "m.login.sso" {
        if !core.offers_sso() {
            return Err(Error::Unrecognized.into());
        }
        match visit.freshly_signed_in() {
            Ok(browser) if Some(&browser.user_id) == user.as_ref() => {}
            Ok(_) => return Ok(visit.to_login("login", true)),
            Err(to_login) => return Ok(without_cookies(&core, &visit, &params.session).unwrap_or(*to_login)),
        }
    }
    Ok(visit.answer(page(&core, &kind, &params.session, &visit.visitor.form_token())?))
}

/// The stage is complete, and the client hears of it.
pub(super) async fn complete(
    State(core): State<Arc<Core>>,
    PathArgs(kind): PathArgs<String>,
    Query(params): Query<Params>,
    Posted { visit, form }: Posted<Form>,
) -> Result<Response, PageError> {
    let proof = match kind.as_str() {
        "m.login.sso" => match visit.freshly_signed_in() {
            Ok(browser) => StageProof::SignedIn(browser.user_id),
            Err(to_login) => return Ok(*to_login),
        },
        "m.login.password" => StageProof::Password(form.password.unwrap_or_default()),
        "m.login.registration_token" => StageProof::RegistrationToken(form.token.unwrap_or_default()),
        RECAPTCHA if core.captcha().is_some() => StageProof::Captcha(form.captcha.unwrap_or_default()),
        "m.login.dummy" => StageProof::Nothing,
        _ => return Err(Error::Unrecognized.into()),
    };
    match core.complete_uia_stage(&params.session, proof).await {
        Ok(()) => {
            let page = Page::new("Thank you", "<p>You can close this page and go back to your app.</p>");
            Ok(visit.answer(page.script("/_matrix/static/client/auth-done.js")))
        }
        Err(error) => {
            Ok(visit.answer(page(&core, &kind, &params.session, &visit.visitor.form_token())?.refused(&error)))
        }
    }
}

/// The way to the CAS server, where browsers without cookies may take it.
fn without_cookies(core: &Core, visit: &Visit, session: &str) -> Option<Response> {
    let url = core.begin_cas_without_cookies(&visit.visitor, CasErrand::Stage(session)).ok()?;
    let body = format!("<p>{SSO_SAYS}</p><p><a class=\"button\" href=\"{}\">Sign in again</a></p>", esc(&url));
    Some(visit.answer(Page::new("Confirm that it is you", body)))
}

const SSO_SAYS: &str = "An app is about to change your account. If you did not expect this, close this page: somebody else may \
                        have access to your account.";

fn page(core: &Core, kind: &str, session: &str, form_token: &str) -> Result<Page, Error> {
    let captcha = core.captcha().filter(|_| kind == RECAPTCHA);
    let captcha_field = captcha_field(captcha);
    let (says, fields) = match kind {
        "m.login.password" => (
            "An app asks you to confirm something with your password. If you did not expect this, close this page.",
            "<label for=\"password\">Password</label>\
             <input id=\"password\" name=\"password\" type=\"password\" autocomplete=\"current-password\" required>",
        ),
        "m.login.registration_token" => (
            "This server asks for a registration token. Its operator gives them out.",
            "<label for=\"token\">Registration token</label>\
             <input id=\"token\" name=\"token\" autocomplete=\"off\" autocapitalize=\"none\" required>",
        ),
        "m.login.sso" => (SSO_SAYS, ""),
        RECAPTCHA if captcha.is_some() => ("Show that you are a person.", captcha_field.as_str()),
        "m.login.dummy" => ("Confirm that you want to go on.", ""),
        _ => return Err(Error::Unrecognized),
    };
    let body = format!(
        "<p>{says}</p><form method=\"post\" \
         action=\"/_matrix/client/v3/auth/{kind}/fallback/web?session={session}\">{guard}{fields}\
         <button type=\"submit\">Confirm</button></form>",
        kind = esc(kind),
        session = encoded(session),
        guard = form_token_field(form_token),
    );
    Ok(Page::new("Confirm that it is you", body).captcha(captcha))
}

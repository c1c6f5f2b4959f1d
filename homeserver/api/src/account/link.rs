//! `/account/link`: a person enters the code that a device shows.

use axum::{extract::State, response::Response};
use matron_core::{
    Error,
    oauth::{Browser, DeviceWanted},
};
use serde::Deserialize;

use super::{
    authorize::{about_client, not_you},
    html::{Page, PageError, encoded, esc, form_token_field},
    visit::{Posted, Visit},
};
use crate::{AppState, extract::Query};

/// What looking a code up costs of its user's budget, whether it is known or not: codes are short.
const TRY_COST: f64 = 20.0;

fn spend_a_try(state: &AppState, browser: &Browser) -> Result<(), Error> {
    state.limiter.take(&format!("user code {}", browser.user_id), TRY_COST, state.core.now_ms())
}

#[derive(Deserialize)]
pub(super) struct Params {
    user_code: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct Form {
    #[serde(default)]
    user_code: String,
    #[serde(default)]
    decision: String,
}

/// The form for the code, or the question about its device.
pub(super) async fn ask(
    State(state): State<AppState>,
    visit: Visit,
    Query(params): Query<Params>,
) -> Result<Response, PageError> {
    let core = &state.core;
    core.check_oauth_enabled()?;
    let browser = match visit.signed_in() {
        Ok(browser) => browser,
        Err(to_login) => return Ok(*to_login),
    };
    let Some(code) = params.user_code.filter(|code| !code.trim().is_empty()) else {
        return Ok(visit.answer(code_page()));
    };
    spend_a_try(&state, &browser)?;
    match core.find_waiting_device(&code) {
        Ok(wanted) => {
            let form_token = visit.visitor.form_token();
            let known = core.find_device(&browser.user_id, &wanted.scope.device_id)?.is_some();
            let about = about_client(&wanted.client, &browser, wanted.scope.device_id.as_str(), known);
            Ok(visit.answer(question(&wanted, &about, &form_token)))
        }
        Err(error) => Ok(visit.answer(code_page().refused(&error))),
    }
}

/// The device is let in, or not.
pub(super) async fn decide(
    State(state): State<AppState>,
    Posted { visit, form }: Posted<Form>,
) -> Result<Response, PageError> {
    let core = &state.core;
    core.check_oauth_enabled()?;
    let browser = match visit.signed_in() {
        Ok(browser) => browser,
        Err(to_login) => return Ok(*to_login),
    };
    spend_a_try(&state, &browser)?;
    let granted = form.decision == "allow";
    core.decide_device(&form.user_code, &browser.user_id, granted)?;
    let body = if granted {
        "<p>The device is signed in. You can close this page and go on there.</p>"
    } else {
        "<p>The device was refused. You can close this page.</p>"
    };
    Ok(visit.answer(Page::new("Done", body)))
}

fn code_page() -> Page {
    Page::new(
        "Sign in on another device",
        "<form method=\"get\" action=\"/account/link\">\
         <label for=\"user_code\">The code that the device shows</label>\
         <input id=\"user_code\" name=\"user_code\" autocomplete=\"off\" autocapitalize=\"characters\" \
         spellcheck=\"false\" required><button type=\"submit\">Continue</button></form>",
    )
}

fn question(wanted: &DeviceWanted, about: &str, form_token: &str) -> Page {
    let here = format!("/account/link?user_code={}", encoded(&wanted.user_code));
    let body = format!(
        "<p class=\"error\">Go on only if you have this device before you and it shows the code <code>{code}</code>. \
         Nobody from your organisation will ever send you a code.</p>{about}\
         <form method=\"post\" action=\"/account/link\">{guard}\
         <input type=\"hidden\" name=\"user_code\" value=\"{code}\">\
         <button type=\"submit\" name=\"decision\" value=\"allow\">Allow</button>\
         <button type=\"submit\" name=\"decision\" value=\"deny\" class=\"quiet\">Refuse</button></form>{other}",
        code = esc(&wanted.user_code),
        guard = form_token_field(form_token),
        other = not_you(&here, form_token),
    );
    Page::new("Sign in on another device", body)
}

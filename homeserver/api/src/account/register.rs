//! `/account/register`: a new account, where the server gives any.

use std::sync::Arc;

use axum::{extract::State, response::Response};
use matron_core::{Core, Error, settings::RegistrationMode};
use serde::Deserialize;

use super::{
    html::{EntryForm, Page, PageError, captcha_field, encoded, esc, password_field, safe_next},
    visit::{Posted, Visit, check_served},
};
use crate::extract::Query;

#[derive(Deserialize)]
pub(super) struct Params {
    next: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct Form {
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    password_again: String,
    token: Option<String>,
    #[serde(rename = "g-recaptcha-response")]
    captcha: Option<String>,
    next: Option<String>,
}

/// The form, or that there is none.
pub(super) async fn show(
    State(core): State<Arc<Core>>,
    visit: Visit,
    Query(params): Query<Params>,
) -> Result<Response, PageError> {
    check_served(&core)?;
    let next = safe_next(params.next.as_deref());
    Ok(visit.answer(page(&core, &visit.visitor.form_token(), &next, "")))
}

/// The account exists, and the browser is signed in to it.
pub(super) async fn register(
    State(core): State<Arc<Core>>,
    Posted { visit, form }: Posted<Form>,
) -> Result<Response, PageError> {
    check_served(&core)?;
    let next = safe_next(form.next.as_deref());
    let name = form.username.trim();
    let made = if form.password == form.password_again {
        core.register_at_browser(name, &form.password, form.token.as_deref(), form.captcha.as_deref()).await
    } else {
        Err(Error::invalid("the two passwords are not the same"))
    };
    match made {
        Ok(user) => visit.sign_in(&core, &user, &next).await,
        Err(error) => Ok(visit.answer(page(&core, &visit.visitor.form_token(), &next, name).refused(&error))),
    }
}

fn page(core: &Arc<Core>, form_token: &str, next: &str, name: &str) -> Page {
    let to_login = format!("<p><a href=\"/account/login?next={}\">Sign in instead</a></p>", encoded(next));
    let mode = core.settings.registration.mode;
    if mode == RegistrationMode::Closed {
        let body = format!("<p>Accounts on this server are made by its operator. Ask them for one.</p>{to_login}");
        return Page::new("Create an account", body);
    }
    let token = if mode == RegistrationMode::Token {
        "<label for=\"token\">Registration token</label>\
         <input id=\"token\" name=\"token\" autocomplete=\"off\" autocapitalize=\"none\" required>"
    } else {
        ""
    };
    let passwords = password_field("password", "Password", "new-password")
        + &password_field("password_again", "Password again", "new-password");
    let form = EntryForm {
        action: "/account/register",
        token: form_token,
        next,
        name,
        fields: passwords + token + &captcha_field(core.required_captcha()),
        button: "Create account",
    };
    let server = esc(core.server_name.as_str());
    let body = format!("<p>Your account will be on <strong>{server}</strong>.</p>{}{to_login}", form.html());
    Page::new("Create an account", body).captcha(core.required_captcha())
}

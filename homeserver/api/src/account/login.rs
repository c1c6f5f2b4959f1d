//! `/account/login` and `/account/logout`: signing in at this browser.

use std::sync::Arc;

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use matron_core::{Core, settings::RegistrationMode};
use serde::Deserialize;

use super::{
    html::{EntryForm, Page, PageError, encoded, esc, go_to, password_field, safe_next},
    visit::{Posted, Visit, check_served},
};
use crate::extract::Query;

#[derive(Deserialize)]
pub(super) struct Params {
    next: Option<String>,
    /// The person must show again who they are.
    again: Option<String>,
    name: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct Form {
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    next: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct Leave {
    next: Option<String>,
}

/// The form.
pub(super) async fn show(
    State(core): State<Arc<Core>>,
    visit: Visit,
    Query(params): Query<Params>,
) -> Result<Response, PageError> {
    check_served(&core)?;
    let next = safe_next(params.next.as_deref());
    if params.again.is_none() && visit.visitor.browser.is_some() {
        return go_to(&next);
    }
    let name = match &visit.visitor.browser {
        Some(browser) => browser.user_id.localpart().to_owned(),
        None => params.name.unwrap_or_default(),
    };
    Ok(visit.answer(page(&core, &visit.visitor.form_token(), &next, &name, params.again.is_some())))
}

/// The browser is signed in.
pub(super) async fn log_in(
    State(core): State<Arc<Core>>,
    Posted { visit, form }: Posted<Form>,
) -> Result<Response, PageError> {
    check_served(&core)?;
    let next = safe_next(form.next.as_deref());
    match core.check_password(form.username.trim(), &form.password).await {
        Ok(user) => visit.sign_in(&core, &user, &next).await,
        Err(error) => {
            let page = page(&core, &visit.visitor.form_token(), &next, form.username.trim(), false).refused(&error);
            Ok(visit.answer(page))
        }
    }
}

/// Nobody is signed in at the browser.
pub(super) async fn log_out(
    State(core): State<Arc<Core>>,
    Posted { visit, form }: Posted<Leave>,
) -> Result<Response, PageError> {
    let visitor = core.sign_out_browser(&visit.visitor).await?;
    Ok(visit.answer_as(&visitor, go_to(&safe_next(form.next.as_deref())).into_response()))
}

fn page(core: &Arc<Core>, form_token: &str, next: &str, name: &str, again: bool) -> Page {
    let form = EntryForm {
        action: "/account/login",
        token: form_token,
        next,
        name,
        fields: password_field("password", "Password", "current-password"),
        button: "Sign in",
    };
    let server = esc(core.server_name.as_str());
    let mut body = format!("<p>Sign in to your account on <strong>{server}</strong>.</p>{}", form.html());
    for upstream in &core.settings.oauth.upstreams {
        body.push_str(&format!(
            "<p><a class=\"button\" href=\"/account/upstream/{}?next={}{}\">Continue with {}</a></p>",
            esc(&upstream.id),
            encoded(next),
            if again { "&amp;again=1" } else { "" },
            esc(&upstream.name),
        ));
    }
    if core.settings.registration.mode != RegistrationMode::Closed {
        body.push_str(&format!("<p><a href=\"/account/register?next={}\">Create an account</a></p>", encoded(next)));
    }
    Page::new("Sign in", body)
}

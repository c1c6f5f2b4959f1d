//! `/account/email`: where the link of a letter leads.
//!
//! Programs open links too, so a person must press a button: opening it is a proof only where the operator says so, and never for a
//! lost password.

use std::sync::Arc;

use axum::{extract::State, response::Response};
use http::Method;
use matron_core::{Core, accounts::email::Purpose};
use serde::Deserialize;

use super::{
    html::{Page, PageError, esc, form_token_field},
    visit::{Posted, Visit},
};
use crate::extract::Query;

#[derive(Deserialize)]
pub(super) struct Link {
    sid: String,
    token: String,
}

/// The address is confirmed, or the button by which it is.
pub(super) async fn open(
    State(core): State<Arc<Core>>,
    visit: Visit,
    method: Method,
    Query(link): Query<Link>,
) -> Result<Response, PageError> {
    let purpose = core.purpose_of_link(&link.sid, &link.token)?;
    // Who asks for the head alone reads no letters.
    let is_proof = core.settings.email.insecure_proved_by_opening && method == Method::GET;
    if is_proof && purpose != Purpose::Password {
        core.confirm_email(&link.sid, &link.token).await?;
        return Ok(visit.answer(confirmed()));
    }
    let (title, what) = match purpose {
        Purpose::Register => ("Register with this e-mail address", "register an account with"),
        Purpose::Add => ("Add this e-mail address", "add to their account"),
        Purpose::Password => ("Set a new password", "set a new password for the account with"),
    };
    let body = format!(
        "<p>Somebody wants to {what} this e-mail address. If it was not you, close this page.</p>\
         <form method=\"post\" action=\"/account/email\">{token}\
         <input type=\"hidden\" name=\"sid\" value=\"{sid}\"><input type=\"hidden\" name=\"token\" value=\"{link}\">\
         <button type=\"submit\">It is me</button></form>",
        token = form_token_field(&visit.visitor.form_token()),
        sid = esc(&link.sid),
        link = esc(&link.token),
    );
    Ok(visit.answer(Page::new(title, body)))
}

/// The address is confirmed.
pub(super) async fn confirm(
    State(core): State<Arc<Core>>,
    Posted { visit, form }: Posted<Link>,
) -> Result<Response, PageError> {
    core.confirm_email(&form.sid, &form.token).await?;
    Ok(visit.answer(confirmed()))
}

fn confirmed() -> Page {
    Page::new("Your e-mail address is confirmed", "<p>Go on in your app. You can close this page.</p>")
}

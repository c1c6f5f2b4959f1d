//! `/account/email`: where the link of a letter leads.
//!
//! Opening it is the proof, but for a lost password: programs open links too, so a person must press a button.

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
    // Who asks for the head alone reads no letters.
    if method == Method::GET && core.purpose_of_link(&link.sid, &link.token)? != Purpose::Password {
        core.confirm_email(&link.sid, &link.token).await?;
        return Ok(visit.answer(confirmed()));
    }
    let body = format!(
        "<p>Somebody wants to set a new password for the account with this e-mail address.</p>\
         <form method=\"post\" action=\"/account/email\">{token}\
         <input type=\"hidden\" name=\"sid\" value=\"{sid}\"><input type=\"hidden\" name=\"token\" value=\"{link}\">\
         <button type=\"submit\">It is me</button></form>",
        token = form_token_field(&visit.visitor.form_token()),
        sid = esc(&link.sid),
        link = esc(&link.token),
    );
    Ok(visit.answer(Page::new("Set a new password", body)))
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

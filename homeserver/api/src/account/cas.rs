//! CAS as the legacy API once had it: the deprecated `m.login.cas`.
//!
//! The ticket's address and what follows from it serve browsers without cookies, where the settings allow them. Others come
//! back from the CAS server as from every provider, to `/account/upstream/{idpId}/callback`.

use std::sync::Arc;

use axum::{extract::State, response::Response};
use http::StatusCode;
use matron_core::{
    Core, Error,
    accounts::StageProof,
    oauth::{CasErrand, SsoTarget},
};
use serde::Deserialize;

use super::{
    html::{Page, PageError, esc, go_to},
    sso,
    visit::Visit,
};
use crate::extract::Query;

#[derive(Deserialize)]
pub(super) struct Params {
    #[serde(rename = "redirectUrl")]
    redirect_url: Option<String>,
    session: Option<String>,
    #[serde(default)]
    ticket: String,
}

/// `GET /_matrix/client/v3/login/cas/redirect`: as `/login/sso/redirect/{idpId}`, to the CAS server.
///
/// SPEC: v1.19 Client-Server API, "SSO client login/authentication".
pub(super) async fn redirect(
    State(core): State<Arc<Core>>,
    visit: Visit,
    Query(params): Query<sso::Params>,
) -> Result<Response, PageError> {
    let cas = core.cas_provider().ok_or(Error::Unrecognized)?;
    if cas.insecure_without_cookies {
        return to_cas(&core, &visit, &params.redirect_url);
    }
    sso::to_pages(&core, &params, Some(&cas.id))
}

/// To the CAS server, for a browser of which nothing can be remembered.
pub(super) fn to_cas(core: &Arc<Core>, visit: &Visit, redirect_url: &str) -> Result<Response, PageError> {
    SsoTarget::parse(redirect_url)?;
    let mut response = go_to(&core.begin_cas_without_cookies(&visit.visitor, CasErrand::Client(redirect_url))?)?;
    *response.status_mut() = StatusCode::FOUND;
    Ok(visit.answer(response))
}

/// `GET /_matrix/client/v3/login/cas/ticket`: back from the CAS server, for a browser of which nothing can be remembered.
pub(super) async fn ticket(
    State(core): State<Arc<Core>>,
    visit: Visit,
    Query(params): Query<Params>,
) -> Result<Response, PageError> {
    let page = match (&params.redirect_url, &params.session) {
        (Some(redirect_url), None) => {
            let target = SsoTarget::parse(redirect_url)?;
            let errand = CasErrand::Client(redirect_url);
            let user = core.finish_cas_without_cookies(&visit.visitor, errand, &params.ticket).await?;
            let link = core.sso_link(&target, &user).await?;
            let body = format!(
                "<p>You are signing in as <strong>{user}</strong> to</p><p class=\"target\"><strong>{target}</strong></p>\
                 <p>It will be able to read and send your messages. Go on only if this is your account, and you came from \
                 there.</p><p><a class=\"button\" href=\"{link}\">Continue</a></p>",
                user = esc(user.as_str()),
                target = esc(&target.shown()),
                link = esc(&link),
            );
            Page::new("Continue to your app?", body)
        }
        (None, Some(session)) => {
            core.user_of_uia_session(session)?;
            let errand = CasErrand::Stage(session);
            let user = core.finish_cas_without_cookies(&visit.visitor, errand, &params.ticket).await?;
            match core.complete_uia_stage(session, StageProof::SignedIn(user)).await {
                Ok(()) => Page::new("Thank you", "<p>You can close this page and go back to your app.</p>")
                    .script("/_matrix/static/client/auth-done.js"),
                Err(Error::Forbidden(_)) => Page::new(
                    "This was not confirmed",
                    "<p class=\"error\" role=\"alert\">You signed in as another user than the app. Nothing was changed.</p>",
                ),
                Err(error) => return Err(error.into()),
            }
        }
        _ => return Err(Error::MissingParam("either `redirectUrl` or `session` is needed".into()).into()),
    };
    Ok(visit.answer(page))
}

//! Who is at the browser.

use std::sync::Arc;

use axum::{
    extract::{FromRequest, FromRequestParts, Request},
    response::{IntoResponse, Response},
};
use http::{HeaderValue, header, request::Parts};
use matron_core::{
    Core, Error,
    oauth::{Browser, Visitor},
};
use ruma::UserId;
use serde::{Deserialize, de::DeserializeOwned};

use super::html::{PageError, encoded, go_to};
use crate::{AppState, extract::read_form, middleware::rate_limit};

/// The browser that asks, counted against its address.
#[derive(Debug)]
pub(super) struct Visit {
    pub(super) visitor: Visitor,
    secure: bool,
    here: String,
}

impl FromRequestParts<AppState> for Visit {
    type Rejection = PageError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, PageError> {
        rate_limit::check_address(parts, state)?;
        let secure = is_secure(&state.core);
        let cookie = cookie(parts, name(secure));
        let visitor = state.core.visitor(cookie)?;
        let here = parts.uri.path_and_query().map_or_else(String::new, |here| here.as_str().to_owned());
        Ok(Self { visitor, secure, here })
    }
}

impl Visit {
    /// The answer, with the cookie if the browser lacks it.
    pub(super) fn answer(&self, answer: impl IntoResponse) -> Response {
        self.answer_as(&self.visitor, answer)
    }

    /// The answer to a browser that signed in or out just now.
    pub(super) fn answer_as(&self, visitor: &Visitor, answer: impl IntoResponse) -> Response {
        let mut response = answer.into_response();
        if visitor.is_new {
            let secure = if self.secure { "; Secure" } else { "" };
            let cookie = format!("{}={}; Path=/; HttpOnly; SameSite=Lax{secure}", name(self.secure), visitor.cookie());
            if let Ok(cookie) = HeaderValue::try_from(cookie) {
                response.headers_mut().append(header::SET_COOKIE, cookie);
            }
        }
        response
    }

    /// The answer to a browser at which this user proved who they are: it is signed in and goes on.
    pub(super) async fn sign_in(&self, core: &Core, user: &UserId, next: &str) -> Result<Response, PageError> {
        let visitor = core.sign_in_browser(&self.visitor, user, true).await?;
        Ok(self.answer_as(&visitor, go_to(next)?))
    }

    /// Who is signed in, or the way to sign in and back here.
    pub(super) fn signed_in(&self) -> Result<Browser, Box<Response>> {
        self.visitor.browser.clone().ok_or_else(|| Box::new(self.to_login("login", false)))
    }

    /// As [`Visit::signed_in`], for what needs the person to have been there within the last minutes.
    pub(super) fn freshly_signed_in(&self) -> Result<Browser, Box<Response>> {
        let browser = self.signed_in()?;
        if browser.is_fresh { Ok(browser) } else { Err(Box::new(self.to_login("login", true))) }
    }

    /// To the page where one signs in (`login`) or registers (`register`), and back here.
    pub(super) fn to_login(&self, page: &str, again: bool) -> Response {
        let again = if again { "&again=1" } else { "" };
        go_to(&format!("/account/{page}?next={}{again}", encoded(&self.here))).into_response()
    }
}

/// The fields of a form that came from one of this server's pages, and the browser that sent it.
#[derive(Debug)]
pub(super) struct Posted<T> {
    pub(super) visit: Visit,
    pub(super) form: T,
}

#[derive(Deserialize)]
struct Guarded<T> {
    #[serde(default)]
    form_token: String,
    #[serde(flatten)]
    form: T,
}

impl<T: DeserializeOwned> FromRequest<AppState> for Posted<T> {
    type Rejection = PageError;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, PageError> {
        let (mut parts, body) = request.into_parts();
        let visit = Visit::from_request_parts(&mut parts, state).await?;
        let Guarded { form_token, form } = read_form::<Guarded<T>>(Request::from_parts(parts, body)).await?;
        visit.visitor.check_form_token(&form_token)?;
        Ok(Self { visit, form })
    }
}

fn is_secure(core: &Arc<Core>) -> bool {
    !core.settings.public_base_url.as_deref().is_some_and(|url| url.starts_with("http://"))
}

/// The cookie's name; with the prefix browsers accept it from this host and over TLS alone.
fn name(secure: bool) -> &'static str {
    if secure { "__Host-matron-account" } else { "matron-account" }
}

fn cookie<'a>(parts: &'a Parts, name: &str) -> Option<&'a str> {
    parts
        .headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .find_map(|pair| pair.trim().strip_prefix(name)?.strip_prefix('='))
}

/// Passes where these pages are served at all.
///
/// # Errors
/// `M_UNRECOGNIZED`.
pub(super) fn check_served(core: &Arc<Core>) -> Result<(), Error> {
    if core.offers_sso() { Ok(()) } else { Err(Error::Unrecognized) }
}

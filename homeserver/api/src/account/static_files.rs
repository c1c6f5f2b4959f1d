//! What never changes: the style sheet, the static login page, and the scripts that the specification demands.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, header};

use super::html::Page;

const STYLE: &str = include_str!("style.css");
const LOGIN_SCRIPT: &str = include_str!("login.js");
const DONE_SCRIPT: &str = include_str!("done.js");

/// `GET /account/style.css`.
pub(super) async fn style() -> Response {
    file("text/css; charset=utf-8", STYLE)
}

/// `GET /_matrix/static/client/login/`: the whole login process for clients that embed it.
///
/// SPEC: v1.19 Client-Server API, "Login fallback".
pub(super) async fn login_page() -> Page {
    Page::new(
        "Sign in",
        "<noscript><p class=\"error\">This page needs JavaScript, since the app that shows it does.</p></noscript>\
         <p id=\"message\" role=\"alert\"></p><form id=\"login\">\
         <label for=\"username\">User name</label>\
         <input id=\"username\" autocomplete=\"username\" autocapitalize=\"none\" required>\
         <label for=\"password\">Password</label>\
         <input id=\"password\" type=\"password\" autocomplete=\"current-password\" required>\
         <button type=\"submit\">Sign in</button></form>",
    )
    .script("/_matrix/static/client/login/login.js")
}

/// The script of the static login page.
pub(super) async fn login_script() -> Response {
    file("text/javascript; charset=utf-8", LOGIN_SCRIPT)
}

/// The script that tells a client that a stage is complete.
pub(super) async fn done_script() -> Response {
    file("text/javascript; charset=utf-8", DONE_SCRIPT)
}

fn file(kind: &'static str, text: &'static str) -> Response {
    let mut response = text.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

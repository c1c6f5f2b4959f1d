//! The server's own pages: signing in, letting clients and devices in, managing one's account.
//!
//! Plain HTML that works without scripts. Every form is guarded by what follows from the browser's cookie, no page can
//! be framed or loads anything from elsewhere.

mod authorize;
mod cas;
mod email;
mod fallback;
mod html;
mod link;
mod login;
mod manage;
mod register;
mod sso;
mod static_files;
mod upstream;
mod visit;

use axum::{Router, routing::get, routing::post};

use crate::{
    AppState,
    routing::{Routes, V3},
};

/// The routes of this part.
pub fn routes() -> Router<AppState> {
    Router::new()
        .route("/account/", get(manage::show))
        .route("/account/authorize", get(authorize::ask).post(authorize::decide))
        .route("/account/deactivate", post(manage::deactivate))
        .route("/account/device", post(manage::end_device))
        .route("/account/email", get(email::open).post(email::confirm))
        .route("/account/identity", post(manage::allow_identity_reset))
        .route("/account/link", get(link::ask).post(link::decide))
        .route("/account/login", get(login::show).post(login::log_in))
        .route("/account/logout", post(login::log_out))
        .route("/account/profile", post(manage::set_profile))
        .route("/account/register", get(register::show).post(register::register))
        .route("/account/sso", get(sso::ask).post(sso::agree))
        .route("/account/upstream/{idp_id}", get(upstream::begin))
        .route("/account/upstream/{idp_id}/callback", get(upstream::finish))
        .route("/account/style.css", get(static_files::style))
        .route("/_matrix/static/client/login/", get(static_files::login_page))
        .route("/_matrix/static/client/login/login.js", get(static_files::login_script))
        .route("/_matrix/static/client/login/style.css", get(static_files::style))
        .route("/_matrix/static/client/auth-done.js", get(static_files::done_script))
        .client(V3, "/login/cas/redirect", get(cas::redirect))
        .client(V3, "/login/cas/ticket", get(cas::ticket))
        .client(V3, "/login/sso/redirect", get(sso::redirect))
        .client(V3, "/login/sso/redirect/{idp_id}", get(sso::redirect_to_provider))
        .client(V3, "/auth/{auth_type}/fallback/web", get(fallback::show).post(fallback::complete))
}

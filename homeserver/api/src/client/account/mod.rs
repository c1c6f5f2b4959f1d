//! One's own account.

mod deactivate;
mod openid;
mod password;
mod threepid;
mod whoami;

use axum::{
    Router,
    routing::{get, post},
};

use crate::{
    AppState,
    routing::{Routes, V3},
};

/// Binding had a path of its own before it was specified (MSC2290), which clients still use.
const BINDING: &[&str] = &["r0", "v3", "unstable"];

pub(super) fn routes() -> Router<AppState> {
    Router::new()
        .client(V3, "/account/whoami", get(whoami::whoami))
        .client(V3, "/account/password", post(password::change))
        .client(V3, "/account/deactivate", post(deactivate::deactivate))
        .client(V3, "/account/3pid", get(threepid::list).post(threepid::add_by_token_alone))
        .client(V3, "/account/3pid/add", post(threepid::add))
        .client(BINDING, "/account/3pid/bind", post(threepid::bind))
        .client(V3, "/account/3pid/delete", post(threepid::delete))
        .client(BINDING, "/account/3pid/unbind", post(threepid::unbind))
        .client(V3, "/account/3pid/email/requestToken", post(threepid::write_to_add))
        .client(V3, "/account/3pid/msisdn/requestToken", post(threepid::call))
        .client(V3, "/account/password/email/requestToken", post(threepid::write_to_reset))
        .client(V3, "/account/password/msisdn/requestToken", post(threepid::call))
        .client(V3, "/register/email/requestToken", post(threepid::write_to_register))
        .client(V3, "/register/msisdn/requestToken", post(threepid::call))
        .client(V3, "/user/{user_id}/openid/request_token", post(openid::request_token))
        .route("/_matrix/federation/v1/openid/userinfo", get(openid::userinfo))
}

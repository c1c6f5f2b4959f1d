//! Third-party networks.

mod lookup;
mod protocols;

use axum::{Router, routing::get};

use crate::{
    AppState,
    routing::{Routes, V3},
};

pub(super) fn routes() -> Router<AppState> {
    Router::new()
        .client(V3, "/thirdparty/protocols", get(protocols::all))
        .client(V3, "/thirdparty/protocol/{protocol}", get(protocols::one))
        .client(V3, "/thirdparty/location/{protocol}", get(lookup::location))
        .client(V3, "/thirdparty/user/{protocol}", get(lookup::user))
        .client(V3, "/thirdparty/location", get(lookup::location_of_alias))
        .client(V3, "/thirdparty/user", get(lookup::user_of_id))
}

//! Profiles.

mod field;
mod whole;

use axum::{Router, routing::get};

use crate::{
    AppState,
    routing::{Routes, V3},
};

/// MSC: 4133 before version 1.16.
const FIELD: &[&str] = &["r0", "v3", "unstable/uk.tcpip.msc4133"];

pub(super) fn routes() -> Router<AppState> {
    Router::new().client(V3, "/profile/{user_id}", get(whole::whole)).client(
        FIELD,
        "/profile/{user_id}/{field}",
        get(field::get).put(field::put).delete(field::delete),
    )
}

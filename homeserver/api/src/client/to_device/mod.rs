//! Messages for single devices.

mod send;

use axum::{Router, routing::put};

use crate::{
    AppState,
    routing::{Routes, V3},
};

/// The routes of this area.
pub(super) fn routes() -> Router<AppState> {
    const WITH_UNSTABLE: &[&str] = &["unstable"];
    let path = "/sendToDevice/{event_type}/{txn_id}";
    Router::new().client(V3, path, put(send::put)).client(WITH_UNSTABLE, path, put(send::put))
}

//! End-to-end encryption keys.

mod changes;
mod claim;
mod dehydrated;
mod device_signing;
mod query;
mod signatures;
mod upload;

use axum::{
    Router,
    routing::{get, post},
};

use crate::{
    AppState,
    routing::{Routes, V3},
};

/// Clients that began before cross-signing was in the specification know its paths as unstable.
const WITH_UNSTABLE: &[&str] = &["r0", "v3", "unstable"];

// MSC: 3814.
const DEHYDRATED: &[&str] = &["unstable/org.matrix.msc3814.v1"];

/// The routes of this area.
pub(super) fn routes() -> Router<AppState> {
    Router::new()
        .client(DEHYDRATED, "/dehydrated_device", get(dehydrated::get).put(dehydrated::put).delete(dehydrated::delete))
        .client(DEHYDRATED, "/dehydrated_device/{device_id}/events", post(dehydrated::events))
        .client(V3, "/keys/upload", post(upload::post))
        .client(V3, "/keys/upload/{device_id}", post(upload::post))
        .client(WITH_UNSTABLE, "/keys/query", post(query::post))
        .client(V3, "/keys/claim", post(claim::post))
        .client(V3, "/keys/changes", get(changes::get))
        .client(WITH_UNSTABLE, "/keys/device_signing/upload", post(device_signing::post))
        .client(WITH_UNSTABLE, "/keys/signatures/upload", post(signatures::post))
}

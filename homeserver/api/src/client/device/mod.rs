//! One's own devices.

mod delete;
mod list;
mod one;

use axum::{
    Router,
    routing::{get, post},
};

use crate::{
    AppState,
    routing::{Routes, V3},
};

pub(super) fn routes() -> Router<AppState> {
    Router::new()
        .client(V3, "/devices", get(list::list))
        .client(V3, "/devices/{device_id}", get(one::show).put(one::rename).delete(delete::one))
        .client(V3, "/delete_devices", post(delete::many))
}

//! Server-side key backups.

mod sessions;
mod version;

use axum::{Router, routing::get};

use crate::{AppState, routing::Routes};

const VERSIONS: &[&str] = &["r0", "v3", "unstable"];

/// The routes of this area.
pub(super) fn routes() -> Router<AppState> {
    Router::new()
        .client(VERSIONS, "/room_keys/version", get(version::get_current).post(version::post))
        .client(VERSIONS, "/room_keys/version/{version}", get(version::get).put(version::put).delete(version::delete))
        .client(VERSIONS, "/room_keys/keys", get(sessions::get_all).put(sessions::put_all).delete(sessions::delete_all))
        .client(
            VERSIONS,
            "/room_keys/keys/{room_id}",
            get(sessions::get_room).put(sessions::put_room).delete(sessions::delete_room),
        )
        .client(
            VERSIONS,
            "/room_keys/keys/{room_id}/{session_id}",
            get(sessions::get_one).put(sessions::put_one).delete(sessions::delete_one),
        )
}

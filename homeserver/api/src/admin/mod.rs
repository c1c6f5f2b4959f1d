//! Operators' endpoints: Synapse-compatible paths that tools and test suites expect.
//!
//! Names and answers are those of Synapse's admin API, as its documentation gives them; the subset is what its tools use.

mod auth;
mod devices;
mod history;
mod media;
mod register;
mod rooms;
mod users;

use axum::{
    Json, Router,
    routing::{delete, get, post, put},
};
use serde_json::json;

use self::auth::Admin;
use crate::{Answer, AppState};

/// The most rows in one answer.
const MAX_LIMIT: usize = 1_000;

/// From which row on, and how many.
fn page(from: Option<usize>, limit: Option<usize>) -> (usize, usize) {
    (from.unwrap_or(0), limit.unwrap_or(100).min(MAX_LIMIT))
}

/// The routes of this part.
pub fn routes() -> Router<AppState> {
    Router::new()
        .route("/_synapse/admin/v1/register", get(register::nonce).post(register::register))
        .route("/_synapse/admin/v1/server_version", get(server_version))
        .merge(of_users())
        .merge(of_rooms())
        .merge(of_media())
}

fn of_users() -> Router<AppState> {
    Router::new()
        .route("/_synapse/admin/v2/users", get(users::list))
        .route("/_synapse/admin/v2/users/{user_id}", get(users::show).put(users::put))
        .route("/_synapse/admin/v2/users/{user_id}/devices", get(devices::list))
        .route(
            "/_synapse/admin/v2/users/{user_id}/devices/{device_id}",
            get(devices::show).put(devices::rename).delete(devices::delete),
        )
        .route("/_synapse/admin/v2/users/{user_id}/delete_devices", post(devices::delete_many))
        .route("/_synapse/admin/v1/users/{user_id}/admin", get(users::is_admin).put(users::set_admin))
        .route("/_synapse/admin/v1/users/{user_id}/joined_rooms", get(users::joined_rooms))
        .route("/_synapse/admin/v1/users/{user_id}/media", get(media::of_user).delete(media::delete_of_user))
        .route("/_synapse/admin/v1/user/{user_id}/media/quarantine", post(media::quarantine_user))
        .route("/_synapse/admin/v1/deactivate/{user_id}", post(users::deactivate))
        .route("/_synapse/admin/v1/reset_password/{user_id}", post(users::reset_password))
        .route("/_synapse/admin/v1/suspend/{user_id}", put(users::suspend))
        .route("/_synapse/admin/v1/whois/{user_id}", get(users::whois))
}

fn of_rooms() -> Router<AppState> {
    Router::new()
        .route("/_synapse/admin/v1/rooms", get(rooms::list))
        .route("/_synapse/admin/v1/rooms/{room_id}", get(rooms::show).delete(rooms::delete))
        .route("/_synapse/admin/v1/rooms/{room_id}/members", get(rooms::members))
        .route("/_synapse/admin/v1/rooms/{room_id}/block", get(rooms::blocked).put(rooms::block))
        .route("/_synapse/admin/v1/rooms/{room_id}/delete", post(rooms::delete))
        .route("/_synapse/admin/v2/rooms/{room_id}", delete(rooms::begin_delete))
        .route("/_synapse/admin/v2/rooms/{room_id}/delete_status", get(rooms::delete_statuses))
        .route("/_synapse/admin/v2/rooms/delete_status/{delete_id}", get(rooms::delete_status))
        .route("/_synapse/admin/v1/purge_history/{room_id}", post(history::purge))
        .route("/_synapse/admin/v1/purge_history/{room_id}/{event_id}", post(history::purge_up_to))
        .route("/_synapse/admin/v1/purge_history_status/{purge_id}", get(history::status))
        .route("/_synapse/admin/v1/room/{room_id}/media", get(media::of_room))
        .route("/_synapse/admin/v1/room/{room_id}/media/quarantine", post(media::quarantine_room))
}

fn of_media() -> Router<AppState> {
    Router::new()
        .route("/_synapse/admin/v1/media/quarantine/{server_name}/{media_id}", post(media::quarantine))
        .route("/_synapse/admin/v1/media/unquarantine/{server_name}/{media_id}", post(media::unquarantine))
        .route("/_synapse/admin/v1/media/{server_name}/{media_id}", delete(media::delete))
        .route("/_synapse/admin/v1/media/delete", post(media::delete_old))
}

/// `GET /_synapse/admin/v1/server_version`.
async fn server_version(_admin: Admin) -> Answer {
    Ok(Json(json!({ "server_version": concat!("Matron ", env!("CARGO_PKG_VERSION")) })))
}

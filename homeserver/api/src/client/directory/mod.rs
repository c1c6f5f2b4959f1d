//! Aliases, the directory of public rooms, and the user directory.

mod alias;
mod listing;
mod public_rooms;
mod users;

use axum::{
    Router,
    routing::{get, post, put},
};

use crate::{
    AppState,
    routing::{Routes, V3},
};

pub(super) fn routes() -> Router<AppState> {
    Router::new()
        .client(V3, "/directory/room/{room_alias}", get(alias::get).put(alias::put).delete(alias::delete))
        .client(V3, "/directory/list/room/{room_id}", get(listing::get).put(listing::put))
        .client(
            V3,
            "/directory/list/appservice/{network_id}/{room_id}",
            put(listing::put_in_network).delete(listing::delete_from_network),
        )
        .client(V3, "/publicRooms", get(public_rooms::get).post(public_rooms::post))
        .client(V3, "/user_directory/search", post(users::search))
}

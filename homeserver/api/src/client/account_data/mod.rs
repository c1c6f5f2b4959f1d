//! Account data, tags and filters.

mod filter;
mod global;
mod room;
mod tags;

use axum::{
    Router,
    routing::{get, post, put},
};
use matron_core::{Error, Requester};
use ruma::UserId;

use crate::{
    AppState,
    routing::{Routes, V3},
};

pub(super) fn routes() -> Router<AppState> {
    Router::new()
        .client(V3, "/user/{user_id}/account_data/{kind}", get(global::get).put(global::put))
        .client(V3, "/user/{user_id}/rooms/{room_id}/account_data/{kind}", get(room::get).put(room::put))
        .client(V3, "/user/{user_id}/rooms/{room_id}/tags", get(tags::list))
        .client(V3, "/user/{user_id}/rooms/{room_id}/tags/{tag}", put(tags::put).delete(tags::delete))
        .client(V3, "/user/{user_id}/filter", post(filter::create))
        .client(V3, "/user/{user_id}/filter/{filter_id}", get(filter::get))
}

/// Passes for one's own.
fn check_own(requester: &Requester, user: &UserId) -> Result<(), Error> {
    if *user == requester.user_id { Ok(()) } else { Err(Error::forbidden("this belongs to another user")) }
}

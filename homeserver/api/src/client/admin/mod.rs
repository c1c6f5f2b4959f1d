//! What operators may do to accounts through the Client-Server API.

mod moderation;
mod whois;

use axum::{Router, routing::get};

use crate::{
    AppState,
    routing::{Routes, V1, V3},
};

pub(super) fn routes() -> Router<AppState> {
    Router::new()
        .client(V3, "/admin/whois/{user_id}", get(whois::whois))
        .client(V1, "/admin/lock/{user_id}", get(moderation::locked).put(moderation::lock))
        .client(V1, "/admin/suspend/{user_id}", get(moderation::suspended).put(moderation::suspend))
}

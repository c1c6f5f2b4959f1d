//! Rooms: creating, membership, sending, state, reading.

mod aliases;
mod context;
mod create;
mod initial_sync;
mod join;
mod joined_rooms;
mod members;
mod membership;
mod messages;
mod mutual;
mod peek;
mod receipts;
mod redact;
mod relations;
mod report;
mod search;
mod send;
mod space;
mod state;
mod threads;
mod timestamp;
mod upgrade;

use axum::{
    Router,
    routing::{get, post, put},
};

use crate::{
    AppState,
    routing::{Routes, V1, V3},
};

// MSC: 3266: Element asks here where the stable path is not advertised.
const SUMMARY_UNSTABLE: &[&str] = &["unstable/im.nheko.summary"];
// MSC: 2666: as it was before 1.19.
const MUTUAL_UNSTABLE: &[&str] = &["unstable/uk.half-shot.msc2666"];
// MSC: 2753.
const PEEK_UNSTABLE: &[&str] = &["unstable/org.matrix.msc2753"];
// MSC: 4306 and 4308.
const THREADS_UNSTABLE: &[&str] = &["unstable/io.element.msc4306"];
const SUBSCRIPTIONS_UNSTABLE: &[&str] = &["unstable/io.element.msc4308"];

/// The routes of this area.
pub(crate) fn routes() -> Router<AppState> {
    Router::new()
        .client(V3, "/createRoom", post(create::post))
        .client(V3, "/joined_rooms", get(joined_rooms::get))
        .client(V3, "/join/{room_id_or_alias}", post(join::post))
        .client(V3, "/knock/{room_id_or_alias}", post(join::post_knock))
        .client(V3, "/peek/{room_id_or_alias}", post(peek::begin))
        .client(V3, "/rooms/{room_id}/unpeek", post(peek::end))
        .client(PEEK_UNSTABLE, "/peek/{room_id_or_alias}", post(peek::begin))
        .client(PEEK_UNSTABLE, "/rooms/{room_id}/unpeek", post(peek::end))
        .client(V3, "/rooms/{room_id}/join", post(join::post))
        .client(V3, "/rooms/{room_id}/leave", post(membership::leave))
        .client(V3, "/rooms/{room_id}/forget", post(membership::forget))
        .client(V3, "/rooms/{room_id}/invite", post(membership::invite))
        .client(V3, "/rooms/{room_id}/kick", post(membership::kick))
        .client(V3, "/rooms/{room_id}/ban", post(membership::ban))
        .client(V3, "/rooms/{room_id}/unban", post(membership::unban))
        .client(V3, "/rooms/{room_id}/send/{event_type}", post(send::post))
        .client(V3, "/rooms/{room_id}/send/{event_type}/{txn_id}", put(send::put))
        .client(V3, "/rooms/{room_id}/redact/{event_id}", post(redact::post))
        .client(V3, "/rooms/{room_id}/redact/{event_id}/{txn_id}", put(redact::put))
        .client(V3, "/rooms/{room_id}/state", get(state::get_all))
        .client(V3, "/rooms/{room_id}/state/{event_type}", get(state::get_without_key).put(state::put_without_key))
        .client(V3, "/rooms/{room_id}/state/{event_type}/", get(state::get_without_key).put(state::put_without_key))
        .client(V3, "/rooms/{room_id}/state/{event_type}/{state_key}", get(state::get_one).put(state::put))
        .client(V3, "/rooms/{room_id}/members", get(members::get))
        .client(V3, "/rooms/{room_id}/joined_members", get(members::get_joined))
        .client(V3, "/rooms/{room_id}/aliases", get(aliases::get))
        .client(V3, "/rooms/{room_id}/upgrade", post(upgrade::post))
        .client(V3, "/rooms/{room_id}/messages", get(messages::get))
        .client(V3, "/rooms/{room_id}/context/{event_id}", get(context::get))
        .client(V3, "/rooms/{room_id}/event/{event_id}", get(context::get_event))
        .client(V3, "/events/{event_id}", get(context::get_any_event))
        .client(V3, "/rooms/{room_id}/receipt/{receipt_type}/{event_id}", post(receipts::post))
        .client(V3, "/rooms/{room_id}/read_markers", post(receipts::post_markers))
        .client(V3, "/rooms/{room_id}/initialSync", get(initial_sync::get_room))
        .client(V3, "/initialSync", get(initial_sync::get))
        .client(V3, "/search", post(search::post))
        .client(V3, "/rooms/{room_id}/report", post(report::post_room))
        .client(V3, "/rooms/{room_id}/report/{event_id}", post(report::post_event))
        .client(V3, "/users/{user_id}/report", post(report::post_user))
        .client(V1, "/rooms/{room_id}/relations/{event_id}", get(relations::get))
        .client(V1, "/rooms/{room_id}/relations/{event_id}/{rel_type}", get(relations::get_by_type))
        .client(V1, "/rooms/{room_id}/relations/{event_id}/{rel_type}/{event_type}", get(relations::get_by_kind))
        .client(V1, "/rooms/{room_id}/threads", get(relations::get_threads))
        .client(
            THREADS_UNSTABLE,
            "/rooms/{room_id}/thread/{event_id}/subscription",
            get(threads::get).put(threads::put).delete(threads::delete),
        )
        .client(SUBSCRIPTIONS_UNSTABLE, "/thread_subscriptions", get(threads::list))
        .client(V1, "/rooms/{room_id}/timestamp_to_event", get(timestamp::get))
        .client(V1, "/rooms/{room_id}/hierarchy", get(space::get_hierarchy))
        .client(V1, "/room_summary/{room_id_or_alias}", get(space::get_summary))
        .client(V1, "/mutual_rooms", get(mutual::get))
        .client(MUTUAL_UNSTABLE, "/user/mutual_rooms", get(mutual::get))
        .client(SUMMARY_UNSTABLE, "/summary/{room_id_or_alias}", get(space::get_summary))
        .client(SUMMARY_UNSTABLE, "/rooms/{room_id_or_alias}/summary", get(space::get_summary))
}

#[cfg(test)]
mod tests;

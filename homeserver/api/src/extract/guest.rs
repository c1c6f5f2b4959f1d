//! What guests may call; everything else that asks for a token is refused to them.
//!
//! SPEC: v1.19 Client-Server API, "Guest Access".

use axum::extract::MatchedPath;
use http::{Method, request::Parts};

/// Where the Client-Server API is.
const CLIENT: &str = "/_matrix/client/";

/// Methods and the ends of paths.
const OPEN: &[(&str, &[&str])] = &[
    // The specification's lists.
    (
        "GET",
        &[
            "/rooms/{room_id}/state",
            "/rooms/{room_id}/context/{event_id}",
            "/rooms/{room_id}/event/{event_id}",
            "/rooms/{room_id}/state/{event_type}",
            "/rooms/{room_id}/state/{event_type}/",
            "/rooms/{room_id}/state/{event_type}/{state_key}",
            "/rooms/{room_id}/messages",
            "/rooms/{room_id}/members",
            "/rooms/{room_id}/initialSync",
            "/sync",
            "/events",
            "/media/download/{server}/{id}",
            "/media/download/{server}/{id}/{file_name}",
            "/media/thumbnail/{server}/{id}",
            "/devices",
            "/devices/{device_id}",
            "/account/whoami",
        ],
    ),
    (
        "PUT",
        &[
            "/rooms/{room_id}/send/{event_type}/{txn_id}",
            "/rooms/{room_id}/state/{event_type}",
            "/rooms/{room_id}/state/{event_type}/",
            "/rooms/{room_id}/state/{event_type}/{state_key}",
            "/sendToDevice/{event_type}/{txn_id}",
            // The display name alone: the use case looks which field it is.
            "/profile/{user_id}/{field}",
            "/devices/{device_id}",
        ],
    ),
    ("DELETE", &["/profile/{user_id}/{field}"]),
    ("POST", &["/rooms/{room_id}/join", "/rooms/{room_id}/leave", "/keys/upload", "/keys/query", "/keys/claim"]),
    // The same things under other names.
    ("POST", &["/join/{room_id_or_alias}", "/rooms/{room_id}/send/{event_type}", "/keys/upload/{device_id}", "/sync"]),
    ("POST", &["/rooms/{room_id}/redact/{event_id}"]),
    ("PUT", &["/rooms/{room_id}/redact/{event_id}/{txn_id}"]),
    // Reading what `/messages` and `/sync` tell anyhow, in another order.
    (
        "GET",
        &[
            "/joined_rooms",
            "/rooms/{room_id}/joined_members",
            "/rooms/{room_id}/aliases",
            "/rooms/{room_id}/relations/{event_id}",
            "/rooms/{room_id}/relations/{event_id}/{rel_type}",
            "/rooms/{room_id}/relations/{event_id}/{rel_type}/{event_type}",
            "/rooms/{room_id}/threads",
            "/rooms/{room_id}/timestamp_to_event",
            "/rooms/{room_id}/hierarchy",
            "/keys/changes",
        ],
    ),
    // What a client needs to know before anything else, and how it ends.
    ("GET", &["/capabilities", "/user/{user_id}/filter/{filter_id}", "/media/config", "/voip/turnServer"]),
    ("POST", &["/user/{user_id}/filter", "/logout", "/logout/all"]),
];

/// Whether guests may call what this request calls.
pub(super) fn is_open(parts: &Parts) -> bool {
    let Some(path) = parts.extensions.get::<MatchedPath>() else { return false };
    let method = if parts.method == Method::HEAD { Method::GET.as_str() } else { parts.method.as_str() };
    path.as_str().starts_with(CLIENT)
        && OPEN.iter().any(|(of, ends)| *of == method && ends.iter().any(|end| path.as_str().ends_with(end)))
}

//! `GET /_matrix/client/v3/rooms/{roomId}/members` and `/joined_members`

use std::sync::Arc;

use axum::{Json, extract::State};
use matron_core::Core;
use ruma::OwnedRoomId;
use serde::Deserialize;
use serde_json::json;

use crate::{
    Answer,
    extract::{Auth, PathArgs, Query},
};

/// Which members, and when.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Filter {
    at: Option<String>,
    membership: Option<String>,
    not_membership: Option<String>,
}

/// Answers the member events that the user may see.
///
/// # Errors
/// As [`Core::room_members`].
pub(crate) async fn get(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    PathArgs(room): PathArgs<OwnedRoomId>,
    Query(filter): Query<Filter>,
) -> Answer {
    let mut chunk = Vec::new();
    for event in core.room_members(&requester.user_id, &room, filter.at.as_deref())? {
        let membership = event.pdu.membership();
        let wanted = filter.membership.as_deref().is_none_or(|wanted| membership == Some(wanted))
            && filter.not_membership.as_deref().is_none_or(|unwanted| membership != Some(unwanted));
        if wanted {
            chunk.push(core.client_event_for(&event, &requester.user_id, requester.device_id.as_deref(), true)?);
        }
    }
    Ok(Json(json!({"chunk": chunk})))
}

/// Answers who is joined, with their profiles.
///
/// # Errors
/// As [`Core::joined_profiles`].
pub(crate) async fn get_joined(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    PathArgs(room): PathArgs<OwnedRoomId>,
) -> Answer {
    Ok(Json(json!({"joined": core.joined_profiles(&requester.user_id, &room)?})))
}

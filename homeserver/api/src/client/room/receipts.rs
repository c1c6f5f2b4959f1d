//! `POST /_matrix/client/v3/rooms/{roomId}/receipt/{receiptType}/{eventId}` and `/rooms/{roomId}/read_markers`

use std::sync::Arc;

use axum::extract::State;
use matron_core::Core;
use ruma::{OwnedEventId, OwnedRoomId};
use serde::Deserialize;

use crate::{
    Answer, Empty, empty,
    extract::{Auth, JsonBody, JsonOrEmpty, PathArgs},
};

/// In which thread.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Thread {
    thread_id: Option<String>,
}

/// Up to where, by kind of marker.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Markers {
    #[serde(rename = "m.fully_read")]
    fully_read: Option<OwnedEventId>,
    #[serde(rename = "m.read")]
    read: Option<OwnedEventId>,
    #[serde(rename = "m.read.private")]
    read_private: Option<OwnedEventId>,
}

/// The user has read up to the event.
///
/// # Errors
/// As [`Core::read_up_to`].
pub(crate) async fn post(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    PathArgs((room, kind, event)): PathArgs<(OwnedRoomId, String, OwnedEventId)>,
    JsonOrEmpty(body): JsonOrEmpty<Thread>,
) -> Answer<Empty> {
    core.read_up_to(&requester.user_id, &room, &kind, &event, body.thread_id.as_deref()).await?;
    empty()
}

/// The user's markers are where the body says.
///
/// # Errors
/// As [`Core::read_up_to`].
pub(crate) async fn post_markers(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    PathArgs(room): PathArgs<OwnedRoomId>,
    JsonBody(body): JsonBody<Markers>,
) -> Answer<Empty> {
    let markers = [("m.fully_read", body.fully_read), ("m.read", body.read), ("m.read.private", body.read_private)];
    for (kind, event) in markers {
        if let Some(event) = event {
            core.read_up_to(&requester.user_id, &room, kind, &event, None).await?;
        }
    }
    empty()
}

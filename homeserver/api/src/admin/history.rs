//! `/_synapse/admin/v1/purge_history`.

use std::sync::Arc;

use axum::{Json, extract::State};
use matron_core::{Core, Error, admin::PurgeUpTo};
use ruma::{OwnedEventId, OwnedRoomId, RoomId};
use serde::Deserialize;
use serde_json::json;

use super::auth::Admin;
use crate::{
    Answer,
    extract::{JsonOrEmpty, PathArgs},
};

#[derive(Default, Deserialize)]
pub(super) struct Body {
    #[serde(default)]
    delete_local_events: bool,
    purge_up_to_event_id: Option<OwnedEventId>,
    purge_up_to_ts: Option<u64>,
}

/// `POST /_synapse/admin/v1/purge_history/{room_id}`.
pub(super) async fn purge(
    State(core): State<Arc<Core>>,
    _admin: Admin,
    PathArgs(room): PathArgs<OwnedRoomId>,
    JsonOrEmpty(body): JsonOrEmpty<Body>,
) -> Answer {
    begin(&core, &room, body)
}

/// `POST /_synapse/admin/v1/purge_history/{room_id}/{event_id}`.
pub(super) async fn purge_up_to(
    State(core): State<Arc<Core>>,
    _admin: Admin,
    PathArgs((room, event)): PathArgs<(OwnedRoomId, OwnedEventId)>,
    JsonOrEmpty(body): JsonOrEmpty<Body>,
) -> Answer {
    begin(&core, &room, Body { purge_up_to_event_id: Some(event), ..body })
}

fn begin(core: &Arc<Core>, room: &RoomId, body: Body) -> Answer {
    let up_to = match (&body.purge_up_to_event_id, body.purge_up_to_ts) {
        (Some(event), _) => PurgeUpTo::Place(core.load_event_in(room, event)?.record.timeline),
        (None, Some(at_ms)) => PurgeUpTo::Time(at_ms),
        (None, None) => {
            let sentence = "`purge_up_to_event_id` or `purge_up_to_ts` is needed";
            return Err(Error::MissingParam(sentence.into()).into());
        }
    };
    let id = core.begin_purge_history(room, up_to, body.delete_local_events)?;
    Ok(Json(json!({ "purge_id": id })))
}

/// `GET /_synapse/admin/v1/purge_history_status/{purge_id}`.
pub(super) async fn status(State(core): State<Arc<Core>>, _admin: Admin, PathArgs(id): PathArgs<String>) -> Answer {
    let task = core.find_task(&id)?;
    if task.removes_room {
        return Err(Error::not_found("no purge has this id").into());
    }
    Ok(Json(json!({ "status": task.state })))
}

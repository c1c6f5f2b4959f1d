//! `/_synapse/admin/v1/rooms`: looked at, blocked, removed.

use std::sync::Arc;

use axum::{Json, extract::State};
use matron_core::{
    Core, Error,
    admin::{RemoveRoom, RoomOrder, Task, TaskState},
};
use ruma::{OwnedRoomId, OwnedUserId};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{auth::Admin, page};
use crate::{
    Answer,
    extract::{JsonBody, JsonOrEmpty, PathArgs, Query},
};

#[derive(Deserialize)]
pub(super) struct List {
    from: Option<usize>,
    limit: Option<usize>,
    order_by: Option<String>,
    dir: Option<String>,
    search_term: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct Delete {
    new_room_user_id: Option<OwnedUserId>,
    room_name: Option<String>,
    message: Option<String>,
    #[serde(default)]
    block: bool,
    purge: Option<bool>,
}

#[derive(Deserialize)]
pub(super) struct Block {
    block: bool,
}

impl Delete {
    fn into_use_case(self) -> RemoveRoom {
        RemoveRoom {
            block: self.block,
            purge: self.purge.unwrap_or(true),
            new_room_user_id: self.new_room_user_id,
            room_name: self.room_name,
            message: self.message,
        }
    }
}

/// `GET /_synapse/admin/v1/rooms`.
pub(super) async fn list(State(core): State<Arc<Core>>, _admin: Admin, Query(query): Query<List>) -> Answer {
    let order = match query.order_by.as_deref() {
        None => RoomOrder::default(),
        Some(name) => RoomOrder::parse(name).ok_or_else(|| Error::invalid("`order_by` names no known order"))?,
    };
    let backwards = match query.dir.as_deref() {
        None | Some("f") => false,
        Some("b") => true,
        Some(_) => return Err(Error::invalid("`dir` is `f` or `b`").into()),
    };
    if query.search_term.as_deref() == Some("") {
        return Err(Error::invalid("`search_term` is empty").into());
    }
    let (from, limit) = page(query.from, query.limit);
    let reading = tokio::task::spawn_blocking(move || {
        core.list_rooms(query.search_term.as_deref(), order, backwards, from, limit)
    });
    let page = reading.await.map_err(|_| Error::internal("listing rooms panicked"))??;
    let mut answer = json!({ "rooms": page.rooms, "offset": from, "total_rooms": page.total });
    if let Some(answer) = answer.as_object_mut() {
        let next = from.saturating_add(limit);
        if next < page.total {
            answer.insert("next_batch".to_owned(), next.into());
        }
        if from > 0 {
            answer.insert("prev_batch".to_owned(), from.saturating_sub(limit).into());
        }
    }
    Ok(Json(answer))
}

/// `GET /_synapse/admin/v1/rooms/{room_id}`.
pub(super) async fn show(
    State(core): State<Arc<Core>>,
    _admin: Admin,
    PathArgs(room): PathArgs<OwnedRoomId>,
) -> Answer {
    let facts = core.room_facts(&room)?;
    let mut answer = json!(facts);
    if let Some(answer) = answer.as_object_mut() {
        answer.insert("joined_local_devices".to_owned(), core.local_devices_in(&room)?.into());
        answer.insert("forgotten".to_owned(), core.is_left_by_all(&room)?.into());
    }
    Ok(Json(answer))
}

/// `GET /_synapse/admin/v1/rooms/{room_id}/members`.
pub(super) async fn members(
    State(core): State<Arc<Core>>,
    _admin: Admin,
    PathArgs(room): PathArgs<OwnedRoomId>,
) -> Answer {
    core.open_room(&room)?;
    let members = core.joined_members(&room)?;
    Ok(Json(json!({ "total": members.len(), "members": members })))
}

/// `GET /_synapse/admin/v1/rooms/{room_id}/block`.
pub(super) async fn blocked(
    State(core): State<Arc<Core>>,
    _admin: Admin,
    PathArgs(room): PathArgs<OwnedRoomId>,
) -> Answer {
    Ok(Json(match core.room_blocked_by(&room)? {
        Some(by) => json!({ "block": true, "user_id": by }),
        None => json!({ "block": false }),
    }))
}

/// `PUT /_synapse/admin/v1/rooms/{room_id}/block`.
pub(super) async fn block(
    State(core): State<Arc<Core>>,
    Admin(requester): Admin,
    PathArgs(room): PathArgs<OwnedRoomId>,
    JsonBody(body): JsonBody<Block>,
) -> Answer {
    core.set_room_blocked(&room, body.block.then_some(&*requester.user_id)).await?;
    Ok(Json(json!({ "block": body.block })))
}

/// `DELETE /_synapse/admin/v1/rooms/{room_id}`: done when it is answered.
pub(super) async fn delete(
    State(core): State<Arc<Core>>,
    Admin(requester): Admin,
    PathArgs(room): PathArgs<OwnedRoomId>,
    JsonOrEmpty(body): JsonOrEmpty<Delete>,
) -> Answer {
    Ok(Json(json!(core.remove_room(&requester, &room, body.into_use_case()).await?)))
}

/// `DELETE /_synapse/admin/v2/rooms/{room_id}`: begun.
pub(super) async fn begin_delete(
    State(core): State<Arc<Core>>,
    Admin(requester): Admin,
    PathArgs(room): PathArgs<OwnedRoomId>,
    JsonOrEmpty(body): JsonOrEmpty<Delete>,
) -> Answer {
    let id = core.begin_remove_room(&requester, &room, body.into_use_case())?;
    Ok(Json(json!({ "delete_id": id })))
}

fn status(task: &Task) -> Value {
    let status = match task.state {
        TaskState::Active => "purging",
        TaskState::Complete => "complete",
        TaskState::Failed => "failed",
    };
    json!({ "status": status, "shutdown_room": task.removed, "delete_id": task.id, "room_id": task.room_id })
}

/// `GET /_synapse/admin/v2/rooms/{room_id}/delete_status`.
pub(super) async fn delete_statuses(
    State(core): State<Arc<Core>>,
    _admin: Admin,
    PathArgs(room): PathArgs<OwnedRoomId>,
) -> Answer {
    let results: Vec<Value> = core.removals_of(&room).iter().map(status).collect();
    if results.is_empty() {
        return Err(Error::not_found("nobody has removed this room lately").into());
    }
    Ok(Json(json!({ "results": results })))
}

/// `GET /_synapse/admin/v2/rooms/delete_status/{delete_id}`.
pub(super) async fn delete_status(
    State(core): State<Arc<Core>>,
    _admin: Admin,
    PathArgs(id): PathArgs<String>,
) -> Answer {
    let task = core.find_task(&id)?;
    if !task.removes_room {
        return Err(Error::not_found("no removal has this id").into());
    }
    Ok(Json(status(&task)))
}

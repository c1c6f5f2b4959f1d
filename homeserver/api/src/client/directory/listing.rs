//! `/_matrix/client/v3/directory/list/room/{roomId}` and `/directory/list/appservice/{networkId}/{roomId}`

use std::sync::Arc;

use axum::{Json, extract::State};
use matron_core::{Core, Error};
use ruma::OwnedRoomId;
use serde::Deserialize;
use serde_json::json;

use crate::{
    Answer, Empty, empty,
    extract::{Auth, JsonOrEmpty, PathArgs},
};

/// Whether the room is listed; `public` if absent.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Listing {
    visibility: Option<String>,
}

impl Listing {
    fn is_listed(&self) -> Result<bool, Error> {
        match self.visibility.as_deref() {
            None | Some("public") => Ok(true),
            Some("private") => Ok(false),
            Some(_) => Err(Error::invalid("`visibility` is `public` or `private`")),
        }
    }
}

/// Answers whether the room is listed.
pub(super) async fn get(State(core): State<Arc<Core>>, PathArgs(room): PathArgs<OwnedRoomId>) -> Answer {
    core.open_room(&room)?;
    let visibility = if core.is_room_listed(&room)? { "public" } else { "private" };
    Ok(Json(json!({"visibility": visibility})))
}

/// The room is listed, or no longer.
pub(super) async fn put(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    PathArgs(room): PathArgs<OwnedRoomId>,
    JsonOrEmpty(body): JsonOrEmpty<Listing>,
) -> Answer<Empty> {
    core.set_room_listed(&requester, &room, body.is_listed()?).await?;
    empty()
}

/// The room is in the list of one of the application service's networks, or no longer.
pub(super) async fn put_in_network(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    PathArgs((network, room)): PathArgs<(String, OwnedRoomId)>,
    JsonOrEmpty(body): JsonOrEmpty<Listing>,
) -> Answer<Empty> {
    core.set_room_listed_in_network(&requester, &network, &room, body.is_listed()?).await?;
    empty()
}

/// The room is no longer in the list. Not in the specification; older application services use it.
pub(super) async fn delete_from_network(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    PathArgs((network, room)): PathArgs<(String, OwnedRoomId)>,
) -> Answer<Empty> {
    core.set_room_listed_in_network(&requester, &network, &room, false).await?;
    empty()
}

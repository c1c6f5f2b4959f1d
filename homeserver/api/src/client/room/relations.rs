//! `GET /_matrix/client/v1/rooms/{roomId}/relations/{eventId}[/{relType}[/{eventType}]]` and `/rooms/{roomId}/threads`

use std::sync::Arc;

use axum::{Json, extract::State};
use matron_core::{
    Core, Error, Requester,
    rooms::read::{
        relations::{RelationsPage, RelationsRequest},
        threads::{ThreadsPage, ThreadsRequest},
        token::Direction,
    },
};
use ruma::{OwnedEventId, OwnedRoomId};
use serde::Deserialize;

use super::messages::gap_of;
use crate::{
    Answer,
    extract::{Auth, PathArgs, Query},
};

/// Which part of the relations.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Page {
    dir: Option<String>,
    from: Option<String>,
    to: Option<String>,
    limit: Option<u64>,
    recurse: bool,
}

/// Which threads.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ThreadsQuery {
    include: Option<String>,
    limit: Option<u64>,
    from: Option<String>,
}

/// Answers what relates to the event.
///
/// # Errors
/// As [`Core::related_events`].
pub(crate) async fn get(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    PathArgs((room, event)): PathArgs<(OwnedRoomId, OwnedEventId)>,
    Query(page): Query<Page>,
) -> Answer<RelationsPage> {
    answer(&core, &requester, (room, event, None, None), page)
}

/// Answers what relates to the event in this way.
///
/// # Errors
/// As [`Core::related_events`].
pub(crate) async fn get_by_type(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    PathArgs((room, event, rel_type)): PathArgs<(OwnedRoomId, OwnedEventId, String)>,
    Query(page): Query<Page>,
) -> Answer<RelationsPage> {
    answer(&core, &requester, (room, event, Some(rel_type), None), page)
}

/// Answers which events of this type relate to the event in this way.
///
/// # Errors
/// As [`Core::related_events`].
pub(crate) async fn get_by_kind(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    PathArgs((room, event, rel_type, kind)): PathArgs<(OwnedRoomId, OwnedEventId, String, String)>,
    Query(page): Query<Page>,
) -> Answer<RelationsPage> {
    answer(&core, &requester, (room, event, Some(rel_type), Some(kind)), page)
}

fn answer(
    core: &Arc<Core>,
    requester: &Requester,
    (room, event, rel_type, kind): (OwnedRoomId, OwnedEventId, Option<String>, Option<String>),
    page: Page,
) -> Answer<RelationsPage> {
    let request = RelationsRequest {
        rel_type,
        kind,
        from: gap_of(page.from.as_deref())?,
        to: gap_of(page.to.as_deref())?,
        direction: page.dir.as_deref().map_or(Ok(Direction::Backward), Direction::parse)?,
        limit: page.limit,
        recurse: page.recurse,
    };
    Ok(Json(core.related_events(requester, &room, &event, &request)?))
}

/// Answers the room's threads.
///
/// # Errors
/// As [`Core::room_threads`].
pub(crate) async fn get_threads(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    PathArgs(room): PathArgs<OwnedRoomId>,
    Query(query): Query<ThreadsQuery>,
) -> Answer<ThreadsPage> {
    let participated = match query.include.as_deref() {
        None | Some("all") => false,
        Some("participated") => true,
        Some(_) => return Err(Error::invalid("`include` is `all` or `participated`").into()),
    };
    let request = ThreadsRequest { participated, limit: query.limit, from: query.from };
    Ok(Json(core.room_threads(&requester, &room, &request)?))
}

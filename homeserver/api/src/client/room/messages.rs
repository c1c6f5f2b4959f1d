//! `GET /_matrix/client/v3/rooms/{roomId}/messages`

use std::sync::Arc;

use axum::{Json, extract::State};
use matron_core::{
    Core, Error,
    accounts::EventFilter,
    rooms::read::{
        messages::{MessagesPage, MessagesRequest},
        token::{Direction, Gap},
    },
};
use ruma::OwnedRoomId;
use serde::Deserialize;

use crate::{
    Answer,
    extract::{Auth, PathArgs, Query},
};

/// Which part of the history.
#[derive(Debug, Deserialize)]
pub(crate) struct Page {
    dir: Option<String>,
    from: Option<String>,
    to: Option<String>,
    limit: Option<u64>,
    filter: Option<String>,
}

/// The filter of a query parameter, JSON.
pub(super) fn filter_of(text: Option<&str>) -> Result<EventFilter, Error> {
    match text {
        None | Some("") => Ok(EventFilter::default()),
        Some(json) => serde_json::from_str(json).map_err(|_| Error::invalid("the filter is not a room event filter")),
    }
}

/// The place that a query parameter names.
pub(super) fn gap_of(text: Option<&str>) -> Result<Option<Gap>, Error> {
    text.filter(|text| !text.is_empty()).map(Gap::parse).transpose()
}

/// Answers a page of the room's history.
///
/// # Errors
/// As [`Core::room_messages`]; `M_MISSING_PARAM`, `M_INVALID_PARAM`.
pub(crate) async fn get(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    PathArgs(room): PathArgs<OwnedRoomId>,
    Query(page): Query<Page>,
) -> Answer<MessagesPage> {
    let dir = page.dir.ok_or_else(|| Error::MissingParam("the parameter `dir` is missing".into()))?;
    let request = MessagesRequest {
        from: gap_of(page.from.as_deref())?,
        to: gap_of(page.to.as_deref())?,
        direction: Direction::parse(&dir)?,
        limit: page.limit,
        filter: filter_of(page.filter.as_deref())?,
    };
    Ok(Json(core.room_messages(&requester, &room, &request).await?))
}

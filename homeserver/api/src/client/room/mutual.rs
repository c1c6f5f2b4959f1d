//! `GET /_matrix/client/v1/mutual_rooms`

use std::sync::Arc;

use axum::{Json, extract::State};
use matron_core::{Core, rooms::read::mutual::MutualRooms};
use ruma::OwnedUserId;
use serde::Deserialize;

use crate::{
    Answer,
    extract::{Auth, Query},
};

/// With whom, and from where.
#[derive(Debug, Deserialize)]
pub(crate) struct Params {
    user_id: OwnedUserId,
    // MSC: 2666 calls it `batch_token`.
    #[serde(alias = "batch_token")]
    from: Option<String>,
}

/// Answers the rooms that the user shares with another.
///
/// # Errors
/// As [`Core::mutual_rooms`].
pub(crate) async fn get(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    Query(params): Query<Params>,
) -> Answer<MutualRooms> {
    let from = params.from.as_deref().filter(|from| !from.is_empty());
    Ok(Json(core.mutual_rooms(&requester.user_id, &params.user_id, from)?))
}

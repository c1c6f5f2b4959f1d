//! `GET /_matrix/client/v3/thirdparty/{location,user}[/{protocol}]`.

use std::sync::Arc;

use axum::{Json, extract::State};
use matron_core::{Core, appservices::Lookup};
use serde_json::Value;

use crate::{
    Answer,
    extract::{Auth, PathArgs, Query},
};

/// The query as it was given, without what concerns only us.
fn fields(query: Vec<(String, String)>) -> Vec<(String, String)> {
    query.into_iter().filter(|(name, _)| !matches!(name.as_str(), "access_token" | "user_id" | "device_id")).collect()
}

type Pairs = Query<Vec<(String, String)>>;

/// Places under these fields.
pub(super) async fn location(
    State(core): State<Arc<Core>>,
    _requester: Auth,
    PathArgs(protocol): PathArgs<String>,
    Query(query): Pairs,
) -> Answer<Vec<Value>> {
    Ok(Json(core.third_party_lookup(Lookup::Location, Some(&protocol), &fields(query)).await))
}

/// People under these fields.
pub(super) async fn user(
    State(core): State<Arc<Core>>,
    _requester: Auth,
    PathArgs(protocol): PathArgs<String>,
    Query(query): Pairs,
) -> Answer<Vec<Value>> {
    Ok(Json(core.third_party_lookup(Lookup::User, Some(&protocol), &fields(query)).await))
}

/// Places of an alias.
pub(super) async fn location_of_alias(
    State(core): State<Arc<Core>>,
    _requester: Auth,
    Query(query): Pairs,
) -> Answer<Vec<Value>> {
    Ok(Json(core.third_party_lookup(Lookup::Location, None, &fields(query)).await))
}

/// People of a user id.
pub(super) async fn user_of_id(
    State(core): State<Arc<Core>>,
    _requester: Auth,
    Query(query): Pairs,
) -> Answer<Vec<Value>> {
    Ok(Json(core.third_party_lookup(Lookup::User, None, &fields(query)).await))
}

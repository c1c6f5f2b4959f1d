//! `GET /_matrix/key/v2/query/{serverName}` and `POST /_matrix/key/v2/query`
//!
//! Spec: <https://spec.matrix.org/v1.19/server-server-api/#querying-keys-through-another-server>.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Json, Router,
    extract::State,
    routing::{get, post},
};
use matron_core::{Core, federation::keys::notary::KeyQuery};
use ruma::{CanonicalJsonObject, OwnedServerName};
use serde::{Deserialize, Serialize};

use crate::{
    Answer, AppState,
    extract::{JsonBody, PathArgs, Query},
};

/// The routes of this file. The form with a key id is older than the specification's present text and still asked for.
pub(super) fn routes() -> Router<AppState> {
    Router::new()
        .route("/_matrix/key/v2/query", post(query))
        .route("/_matrix/key/v2/query/{server_name}", get(query_server))
        .route("/_matrix/key/v2/query/{server_name}/{key_id}", get(query_server_key))
}

#[derive(Debug, Deserialize)]
struct Body {
    server_keys: BTreeMap<OwnedServerName, BTreeMap<String, Criteria>>,
}

#[derive(Debug, Deserialize)]
struct Criteria {
    minimum_valid_until_ts: Option<u64>,
}

#[derive(Debug, Serialize)]
struct ServerKeys {
    server_keys: Vec<CanonicalJsonObject>,
}

async fn query(State(core): State<Arc<Core>>, JsonBody(body): JsonBody<Body>) -> Answer<ServerKeys> {
    let queries = body.server_keys.into_iter().map(|(server, keys)| {
        let keys = keys.into_iter().map(|(key_id, criteria)| (key_id, criteria.minimum_valid_until_ts)).collect();
        KeyQuery { server, keys, until_ms: None }
    });
    Ok(Json(ServerKeys { server_keys: core.notarised_keys(queries.collect()).await? }))
}

async fn query_server(
    State(core): State<Arc<Core>>,
    PathArgs(server): PathArgs<OwnedServerName>,
    Query(criteria): Query<Criteria>,
) -> Answer<ServerKeys> {
    let query = KeyQuery { server, keys: BTreeMap::new(), until_ms: criteria.minimum_valid_until_ts };
    Ok(Json(ServerKeys { server_keys: core.notarised_keys(vec![query]).await? }))
}

async fn query_server_key(
    State(core): State<Arc<Core>>,
    PathArgs((server, key_id)): PathArgs<(OwnedServerName, String)>,
    Query(criteria): Query<Criteria>,
) -> Answer<ServerKeys> {
    let query = KeyQuery { server, keys: [(key_id, criteria.minimum_valid_until_ts)].into(), until_ms: None };
    Ok(Json(ServerKeys { server_keys: core.notarised_keys(vec![query]).await? }))
}

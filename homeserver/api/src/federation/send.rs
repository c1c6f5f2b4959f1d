//! `PUT /_matrix/federation/v1/send/{txnId}`

use std::sync::Arc;

use axum::{Json, Router, extract::State, routing::put};
use matron_core::{Core, federation::receive::Transaction};

use crate::{
    Answer, AppState,
    extract::{PathArgs, PeerJson},
};

/// The routes of this endpoint.
pub(crate) fn routes() -> Router<AppState> {
    Router::new().route("/_matrix/federation/v1/send/{txn_id}", put(handle))
}

/// Every event is judged; answers by event id what was wrong with it.
///
/// # Errors
/// As [`Core::receive_transaction`].
pub(crate) async fn handle(
    State(core): State<Arc<Core>>,
    PathArgs(txn_id): PathArgs<String>,
    PeerJson { server, body }: PeerJson<Transaction>,
) -> Answer {
    Ok(Json(core.receive_transaction(&server, &txn_id, body).await?))
}

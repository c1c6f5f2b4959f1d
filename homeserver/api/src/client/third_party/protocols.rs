//! `GET /_matrix/client/v3/thirdparty/protocols` and `…/protocol/{protocol}`.

use std::{collections::BTreeMap, sync::Arc};

use axum::{Json, extract::State};
use matron_core::Core;
use serde_json::Value;

use crate::{
    Answer,
    extract::{Auth, PathArgs},
};

/// All protocols.
pub(super) async fn all(State(core): State<Arc<Core>>, _requester: Auth) -> Answer<BTreeMap<String, Value>> {
    Ok(Json(core.third_party_protocols().await))
}

/// One protocol.
pub(super) async fn one(
    State(core): State<Arc<Core>>,
    _requester: Auth,
    PathArgs(protocol): PathArgs<String>,
) -> Answer {
    Ok(Json(core.third_party_protocol(&protocol).await?))
}

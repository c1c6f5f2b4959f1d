//! `/account/upstream/{idpId}`: signing in at an identity provider.

use std::sync::Arc;

use axum::{extract::State, response::Response};
use matron_core::{Core, oauth::UpstreamAnswer};
use serde::Deserialize;

use super::{
    html::{PageError, go_to, safe_next},
    visit::Visit,
};
use crate::extract::{PathArgs, Query};

#[derive(Deserialize)]
pub(super) struct Params {
    next: Option<String>,
    again: Option<String>,
}

/// To the provider.
pub(super) async fn begin(
    State(core): State<Arc<Core>>,
    visit: Visit,
    PathArgs(id): PathArgs<String>,
    Query(params): Query<Params>,
) -> Result<Response, PageError> {
    let next = safe_next(params.next.as_deref());
    let url = core.begin_upstream(&id, &visit.visitor, next, params.again.is_some()).await?;
    Ok(visit.answer(go_to(&url)?))
}

/// Back from the provider, and on to where the person wanted to go.
pub(super) async fn finish(
    State(core): State<Arc<Core>>,
    visit: Visit,
    PathArgs(id): PathArgs<String>,
    Query(answer): Query<UpstreamAnswer>,
) -> Result<Response, PageError> {
    let signed_in = core.finish_upstream(&id, &visit.visitor, &answer).await?;
    let visitor = core.sign_in_browser(&visit.visitor, &signed_in.user_id, signed_in.is_fresh).await?;
    Ok(visit.answer_as(&visitor, go_to(&signed_in.next)?))
}

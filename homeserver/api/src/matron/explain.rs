//! `GET /_matron/v1/policy/explain/{decisionId}`

use std::sync::Arc;

use axum::{Json, extract::State};
use matron_core::{Core, Error, governance::Explanation};

use crate::{
    Answer,
    extract::{Auth, PathArgs},
};

/// The decision in plain words, without message content. Whoever was told the id may ask; guests may not.
///
/// # Errors
/// `M_NOT_FOUND` for an id that the audit log does not have; `M_GUEST_ACCESS_FORBIDDEN`.
pub(super) async fn decision(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    PathArgs(decision_id): PathArgs<String>,
) -> Answer<Explanation> {
    if requester.is_guest {
        return Err(Error::GuestForbidden.into());
    }
    let explanation = core.explain(&decision_id)?;
    Ok(Json(explanation.ok_or_else(|| Error::not_found("the audit log has no decision of this id"))?))
}

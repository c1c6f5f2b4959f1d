//! Matron's own endpoints, under `/_matron/v1`.
//!
//! What the governance bot, the compliance console and officers' tools ask: decisions explained, the audit log, what has
//! expired, credentials and revocations.

mod audit;
mod credential;
mod explain;
mod retention;
mod revocation;

use axum::{
    Router,
    routing::{get, post},
};

use crate::AppState;

/// The routes of this part.
pub fn routes() -> Router<AppState> {
    Router::new()
        .route("/_matron/v1/policy/explain/{decision_id}", get(explain::decision))
        .route("/_matron/v1/retention/due", get(retention::due))
        .route("/_matron/v1/audit", get(audit::entries))
        .route("/_matron/v1/audit/verify", get(audit::verify))
        .route("/_matron/v1/credential", post(credential::store))
        .route("/_matron/v1/revocation", post(revocation::revoke))
        .route("/_matron/v1/register/reload", post(revocation::reload))
}

//! `GET /_matron/v1/audit` and `GET /_matron/v1/audit/verify`

use std::sync::Arc;

use axum::{Json, extract::State};
use matron_core::{Core, Error, Requester, governance::AuditCheck};
use serde::Deserialize;
use serde_json::json;

use crate::{
    Answer,
    extract::{Auth, Query},
};

#[derive(Deserialize)]
pub(super) struct Page {
    #[serde(default)]
    from: u64,
    limit: Option<usize>,
}

/// Entries of the audit log, from place `from` on; `next` is where the following page begins.
///
/// # Errors
/// `M_FORBIDDEN` for who is neither officer nor operator.
pub(super) async fn entries(State(core): State<Arc<Core>>, Auth(requester): Auth, Query(page): Query<Page>) -> Answer {
    require_officer(&core, &requester)?;
    let entries = core.audit_entries(page.from, page.limit.unwrap_or(100))?;
    let next = entries.last().map(|entry| entry.seq.saturating_add(1));
    Ok(Json(json!({ "entries": entries, "next": next })))
}

/// Whether the whole log is as it was written, and its head.
///
/// # Errors
/// As [`entries`].
pub(super) async fn verify(State(core): State<Arc<Core>>, Auth(requester): Auth) -> Answer {
    require_officer(&core, &requester)?;
    let checked = tokio::task::spawn_blocking(move || core.verify_audit())
        .await
        .map_err(|_| Error::internal("the check of the audit log was interrupted"))??;
    Ok(Json(match checked {
        AuditCheck::Whole(head) => json!({ "whole": true, "entries": head.next_seq, "head": head.hash }),
        AuditCheck::Broken(broken) => json!({ "whole": false, "seq": broken.seq, "broken": broken.to_string() }),
    }))
}

/// # Errors
/// [`Error::Forbidden`].
pub(super) fn require_officer(core: &Core, requester: &Requester) -> Result<(), Error> {
    if core.is_officer(requester) {
        return Ok(());
    }
    Err(Error::forbidden("only officers and operators may do this"))
}

//! The audit log, read and verified.

use axum::{
    Json, Router,
    extract::{Query, State},
    routing::{get, post},
};
use matron_core::governance::AuditCheck;
use serde::Deserialize;
use serde_json::json;

use super::{Answer, House, Refused};

/// How many entries one answer holds, unless fewer are asked for.
const PAGE: usize = 1000;

pub(super) fn routes() -> Router<House> {
    Router::new().route("/audit", get(show)).route("/audit/verify", post(verify))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Window {
    #[serde(default)]
    from: u64,
    #[serde(default)]
    limit: Option<usize>,
}

async fn show(State(house): State<House>, Query(window): Query<Window>) -> Answer {
    let entries = house.core.audit_entries(window.from, window.limit.unwrap_or(PAGE).min(PAGE))?;
    Ok(Json(json!({ "entries": entries })))
}

/// The chain from its first entry to its last.
async fn verify(State(house): State<House>) -> Answer {
    let checked = tokio::task::spawn_blocking(move || house.core.verify_audit()).await;
    let checked = checked.map_err(|_| Refused::bad("the audit log could not be read"))??;
    Ok(Json(match checked {
        AuditCheck::Whole(head) => json!({ "entries": head.next_seq, "head": head.hash }),
        AuditCheck::Broken(broken) => json!({ "broken": broken.to_string() }),
    }))
}

//! The audit log, read and verified page by page.

use axum::{
    Json, Router,
    extract::{Query, State},
    routing::{get, post},
};
use matron_core::Core;
use matron_policy::{AuditEntry, ChainHead, DecisionId, verify_chain_from};
use matron_storage::{KeyRange, Order, StoreError, Table};
use serde::Deserialize;
use serde_json::json;

use super::{Answer, House, Refused};

/// Entries read at once.
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
    let limit = window.limit.unwrap_or(PAGE).min(PAGE);
    let start = matron_storage::Key::new().number(window.from);
    let range = KeyRange { start: start.into(), end: None };
    let entries = page(&house.core, &range, Order::Ascending, limit)?.0;
    Ok(Json(json!({ "entries": entries })))
}

/// The chain from its first entry to its last.
async fn verify(State(house): State<House>) -> Answer {
    let verified = tokio::task::spawn_blocking(move || walk(&house.core)).await;
    verified.map_err(|_| Refused::bad("the audit log could not be read"))?
}

fn walk(core: &Core) -> Answer {
    let mut head = ChainHead::GENESIS;
    let mut range = KeyRange::all();
    loop {
        let (entries, last) = page(core, &range, Order::Ascending, PAGE)?;
        let Some(last) = last else { break };
        match verify_chain_from(head, &entries) {
            Ok(next) => head = next,
            Err(broken) => return Ok(Json(json!({ "broken": broken.to_string() }))),
        }
        range = range.after(&last);
    }
    Ok(Json(json!({ "entries": head.next_seq, "head": head.hash })))
}

/// The entry of a decision; newest first, since people ask about what just happened.
///
/// # Errors
/// The store's.
pub(super) fn find(core: &Core, id: DecisionId) -> Result<Option<AuditEntry>, Refused> {
    let mut range = KeyRange::all();
    loop {
        let (entries, last) = page(core, &range, Order::Descending, PAGE)?;
        let Some(last) = last else { return Ok(None) };
        if let Some(found) = entries.into_iter().find(|entry| entry.decision_id == id) {
            return Ok(Some(found));
        }
        range = range.before(&last);
    }
}

fn page(
    core: &Core,
    range: &KeyRange,
    order: Order,
    limit: usize,
) -> Result<(Vec<AuditEntry>, Option<Vec<u8>>), Refused> {
    let rows = core.store.scan(Table::AuditEntry, range, order, limit)?;
    let last = rows.last().map(|(key, _)| key.clone());
    let entries = rows
        .iter()
        .map(|(_, value)| serde_json::from_slice(value))
        .collect::<Result<_, _>>()
        .map_err(|error| StoreError::Corrupt(format!("audit_entry: {error}")))?;
    Ok((entries, last))
}

//! Decisions, explained.

use axum::{
    Json, Router,
    extract::{Path, State},
    routing::get,
};
use matron_policy::DecisionId;
use serde_json::json;

use super::{Answer, House, Refused};

pub(super) fn routes() -> Router<House> {
    Router::new().route("/policy/decisions/{id}", get(decision))
}

async fn decision(State(house): State<House>, Path(id): Path<String>) -> Answer {
    let id: DecisionId = id.parse().map_err(|error: matron_policy::DecisionIdError| Refused::bad(error.to_string()))?;
    let found = house.core.explain(&id.to_string())?;
    let found = found.ok_or_else(|| Refused::not_found(format!("the audit log has no decision {id}")))?;
    Ok(Json(json!({
        "decision_id": found.decision_id,
        "room_id": found.room_id,
        "at_ms": found.at_ms,
        "explanation": found.explanation,
    })))
}

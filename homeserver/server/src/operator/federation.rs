//! Other servers: how it stands with them, what is wrong, and trying again.

use axum::{
    Json, Router,
    extract::{Path, State},
    routing::{get, post},
};
use ruma::OwnedServerName;
use serde_json::json;

use super::{Answer, House, Refused};

pub(super) fn routes() -> Router<House> {
    Router::new()
        .route("/federation", get(all))
        .route("/federation/{server}", get(one))
        .route("/federation/{server}/retry", post(retry))
        .route("/federation/{server}/probe", post(probe))
}

fn name(server: &str) -> Result<OwnedServerName, Refused> {
    OwnedServerName::try_from(server).map_err(|_| Refused::bad(format!("{server} is no server name")))
}

async fn all(State(house): State<House>) -> Answer {
    Ok(Json(json!({ "now_ms": house.core.now_ms(), "servers": house.core.peer_reports()? })))
}

async fn one(State(house): State<House>, Path(server): Path<String>) -> Answer {
    let report = house.core.peer_report(&name(&server)?)?;
    Ok(Json(json!({ "now_ms": house.core.now_ms(), "servers": [report] })))
}

async fn retry(State(house): State<House>, Path(server): Path<String>) -> Answer {
    let server = name(&server)?;
    house.core.retry_peer(&server).await?;
    Ok(Json(json!({ "server": server })))
}

async fn probe(State(house): State<House>, Path(server): Path<String>) -> Answer {
    Ok(Json(json!({ "findings": house.core.probe_peer(&name(&server)?).await? })))
}

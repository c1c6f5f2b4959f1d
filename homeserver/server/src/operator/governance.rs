//! Credentials, revocations and the register.

use axum::{
    Json, Router,
    extract::{Path, State},
    routing::{post, put},
};
use matron_core::governance::RegisterChange;
use serde_json::{Value, json};

use super::{Answer, House, Refused, accounts::local_user};

/// The operator, as the audit log names whoever may open the data directory.
const OPERATOR: &str = "operator";

pub(super) fn routes() -> Router<House> {
    Router::new()
        .route("/users/{user}/credential", put(store_credential))
        .route("/revocations", post(revoke))
        .route("/register/reload", post(reload))
}

async fn store_credential(
    State(house): State<House>,
    Path(user): Path<String>,
    Json(credential): Json<Value>,
) -> Answer {
    let user = local_user(&house.core, &user)?;
    if credential.get("user_id").and_then(Value::as_str) != Some(user.as_str()) {
        return Err(Refused::bad(format!("the credential is not {user}'s")));
    }
    let user = house.core.store_credential(OPERATOR, &credential).await?;
    Ok(Json(json!({ "user_id": user })))
}

async fn revoke(State(house): State<House>, Json(notice): Json<Value>) -> Answer {
    let revoked = house.core.revoke_credentials(notice.to_string().as_bytes()).await?;
    Ok(Json(json!({ "revoked": revoked })))
}

async fn reload(State(house): State<House>) -> Answer {
    Ok(Json(match house.core.reload_register().await? {
        RegisterChange::Same => json!({ "changed": false }),
        RegisterChange::Accepted(version) => json!({ "changed": true, "version": version }),
    }))
}

//! `POST /_matron/v1/revocation` and `POST /_matron/v1/register/reload`

use std::sync::Arc;

use axum::{Json, extract::State};
use matron_core::{Core, governance::RegisterChange};
use serde_json::{Value, json};

use super::audit::require_officer;
use crate::{
    Answer,
    extract::{Auth, JsonBody},
};

/// The credentials that the notice names are worth nothing from now on; who held one is evicted.
///
/// # Errors
/// `M_FORBIDDEN` for who is no officer, and for a notice that its organisation did not sign; `M_BAD_JSON`.
pub(super) async fn revoke(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    JsonBody(notice): JsonBody<Value>,
) -> Answer {
    require_officer(&core, &requester)?;
    let revoked = core.revoke_credentials(notice.to_string().as_bytes()).await?;
    Ok(Json(json!({ "revoked": revoked })))
}

/// The register of the configured file is in use.
///
/// # Errors
/// `M_FORBIDDEN` for who is no officer; `M_UNKNOWN` with what is wrong with the file.
pub(super) async fn reload(State(core): State<Arc<Core>>, Auth(requester): Auth) -> Answer {
    require_officer(&core, &requester)?;
    Ok(Json(match core.reload_register().await? {
        RegisterChange::Same => json!({ "changed": false }),
        RegisterChange::Accepted(version) => json!({ "changed": true, "version": version }),
    }))
}

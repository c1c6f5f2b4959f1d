//! `POST /_matrix/client/v3/logout` and `/logout/all`.

use std::sync::Arc;

use axum::extract::State;
use matron_core::Core;

use crate::{Answer, Empty, empty, extract::AuthEvenLocked};

/// The session and its device are gone.
pub(super) async fn logout(State(core): State<Arc<Core>>, AuthEvenLocked(requester): AuthEvenLocked) -> Answer<Empty> {
    core.log_out(&requester).await?;
    empty()
}

/// All sessions of the user and their devices are gone.
pub(super) async fn logout_all(
    State(core): State<Arc<Core>>,
    AuthEvenLocked(requester): AuthEvenLocked,
) -> Answer<Empty> {
    core.log_out_all(&requester.user_id).await?;
    empty()
}

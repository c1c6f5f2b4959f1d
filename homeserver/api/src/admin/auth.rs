//! Who may use the admin API: whoever holds the token of an operator's account.

use axum::extract::FromRequestParts;
use http::request::Parts;
use matron_core::Requester;

use crate::{ApiError, AppState, extract::Auth};

/// An operator.
///
/// Refusals: as [`Auth`]; `M_FORBIDDEN` for everybody else.
#[derive(Clone, Debug)]
pub(super) struct Admin(pub(super) Requester);

impl FromRequestParts<AppState> for Admin {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let Auth(requester) = Auth::from_request_parts(parts, state).await?;
        state.core.check_admin(&requester)?;
        Ok(Self(requester))
    }
}

//! Matron as a policy server: `/_matrix/policy/v1`.

mod sign;

use axum::Router;

use crate::AppState;

/// The routes of this part.
pub fn routes() -> Router<AppState> {
    sign::routes()
}

//! What the application service serves: the Application Service API, and its own admin calls.

mod admin;
mod error;
mod queries;
mod transactions;

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::header::AUTHORIZATION;
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{get, post, put};

pub use admin::{CreatedRoom, FailedInvite, RoomCreator, RoomCreatorError};
pub use error::ApiError;
pub use queries::OwnIds;
pub use transactions::{Transaction, Transactions};

use crate::secret::Secret;

/// Largest transaction that is taken, in bytes; a homeserver sends at most a hundred events of 64 KiB.
const MAX_BODY_BYTES: usize = 16 * 1024 * 1024;
/// Largest admin request, in bytes.
const MAX_ADMIN_BODY_BYTES: usize = 64 * 1024;

/// What the Application Service API handlers need.
#[derive(Debug, Clone)]
pub struct AppState {
    /// Proves the homeserver.
    pub hs_token: Secret,
    /// Where transactions go.
    pub transactions: Arc<Transactions>,
    /// The ids that exist here.
    pub ids: Arc<OwnIds>,
}

/// The Application Service API.
pub fn app_router(state: AppState) -> Router {
    let guard = Guard { tokens: Arc::new(vec![state.hs_token.clone()]) };
    let v1 = Router::new()
        .route("/transactions/{txn_id}", put(transactions::put))
        .route("/users/{user_id}", get(queries::user))
        .route("/rooms/{alias}", get(queries::room))
        .route("/ping", post(queries::ping))
        .method_not_allowed_fallback(error::method_not_allowed)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(middleware::from_fn_with_state(guard, require_token));
    Router::new()
        .nest("/_matrix/app/v1", v1.clone())
        // SPEC: Application Service API, "Legacy routes".
        .merge(v1)
        .fallback(error::not_found)
        .with_state(state)
}

/// The admin calls, guarded by either token of the registration.
pub fn admin_router(creator: Arc<dyn RoomCreator>, tokens: Vec<Secret>) -> Router {
    let guard = Guard { tokens: Arc::new(tokens) };
    Router::new()
        .route("/_matron/appservice/v1/rooms", post(admin::create_room))
        .layer(DefaultBodyLimit::max(MAX_ADMIN_BODY_BYTES))
        .layer(middleware::from_fn_with_state(guard, require_token))
        .method_not_allowed_fallback(error::method_not_allowed)
        .fallback(error::not_found)
        .with_state(creator)
}

#[derive(Debug, Clone)]
struct Guard {
    tokens: Arc<Vec<Secret>>,
}

/// Lets a request pass that bears one of the guard's tokens.
async fn require_token(State(guard): State<Guard>, request: Request, next: Next) -> Result<Response, ApiError> {
    let offered = request
        .headers()
        .get(AUTHORIZATION)
        .ok_or(ApiError::MissingToken)?
        .to_str()
        .ok()
        .and_then(|value| value.strip_prefix("Bearer "))
        .ok_or(ApiError::MissingToken)?;
    // Every token is compared, so that time tells nothing about which one was nearly right.
    let known = guard.tokens.iter().fold(false, |found, token| token.matches(offered) | found);
    if known { Ok(next.run(request).await) } else { Err(ApiError::Forbidden) }
}

//! HTTP in, use cases out: thin handlers over `matron-core`.
//!
//! - [`client`]: the Client-Server API; the path is the address: `POST /_matrix/client/v3/login` is `client/login/…`.
//! - [`federation`]: the Server-Server API and published keys.
//! - [`admin`]: operators' endpoints, Synapse-compatible where tools expect it. [`matron`]: Matron's own, `/_matrix`-free.
//! - [`oauth`]: the OAuth 2.0 API, for clients. [`account`]: its pages, for people at a browser.
//! - [`policy`]: `/_matrix/policy/v1`. [`appservice`]: what application services ask of us.
//! - [`extract`]: who asks and what; every refusal is a Matrix error. [`error`]: every use case's refusal as status and errcode.
//! - [`routing`]: how a handler gets its paths. [`middleware`]: CORS, spans, panics, rate limits. [`metrics`]: counters.

pub mod account;
pub mod admin;
pub mod appservice;
pub mod client;
pub mod error;
pub mod extract;
pub mod federation;
pub mod matron;
pub mod metrics;
pub mod middleware;
pub mod oauth;
pub mod policy;
pub mod routing;

use std::sync::Arc;

use axum::{Router, extract::FromRef};
use matron_core::Core;

pub use error::{Answer, ApiError, Empty, empty};
pub use middleware::{ClientAddress, rate_limit::RateLimiter};

/// What every handler can reach. Handlers take `State(core): State<Arc<Core>>`.
#[derive(Clone, Debug)]
pub struct AppState {
    /// The use cases.
    pub core: Arc<Core>,
    /// Token buckets per user and address.
    pub limiter: Arc<RateLimiter>,
}

impl FromRef<AppState> for Arc<Core> {
    fn from_ref(state: &AppState) -> Self {
        Self::clone(&state.core)
    }
}

/// Every path that Matron serves, ready for a listener.
///
/// The listener should put a [`ClientAddress`] into each request's extensions; without one, requests
/// that carry no token share one rate limit.
pub fn router(core: Arc<Core>) -> Router {
    let limiter = Arc::new(RateLimiter::new(core.settings.rate_limit));
    let state = AppState { core, limiter };
    middleware::wrap(routes(), state)
}

/// Every path with its handlers, before anything surrounds them: tests read from it what there is to try.
pub fn routes() -> Router<AppState> {
    Router::new()
        .merge(client::routes())
        .merge(federation::routes())
        .merge(account::routes())
        .merge(admin::routes())
        .merge(matron::routes())
        .merge(appservice::routes())
        .merge(oauth::routes())
        .merge(policy::routes())
}

//! How a handler gets its paths.

use axum::{Router, routing::MethodRouter};

use crate::AppState;

/// Paths of the Client-Server API that old clients know as `r0`.
pub const V3: &[&str] = &["r0", "v3"];

/// Paths that came with the global versioning.
pub const V1: &[&str] = &["v1"];

/// The full paths of one endpoint of the Client-Server API under several versions.
pub fn versions<'a>(versions: impl IntoIterator<Item = &'a str>, path: &str) -> Vec<String> {
    versions.into_iter().map(|version| format!("/_matrix/client/{version}{path}")).collect()
}

/// Adds endpoints to a router.
pub trait Routes: Sized {
    /// Serves `/_matrix/client/{version}{path}` for each version.
    ///
    /// # Panics
    /// When two handlers claim one path and method: found by any test that builds the router.
    #[must_use]
    fn client(self, versions: &[&str], path: &str, handlers: MethodRouter<AppState>) -> Self;
}

impl Routes for Router<AppState> {
    fn client(self, names: &[&str], path: &str, handlers: MethodRouter<AppState>) -> Self {
        versions(names.iter().copied(), path)
            .into_iter()
            .fold(self, |router, path| router.route(&path, handlers.clone()))
    }
}

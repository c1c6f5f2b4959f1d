//! The content repository.
//!
//! Uploads kept their old paths; downloads moved to `/_matrix/client/v1/media`, which demands a token. The old download
//! paths answer only where the operator allows media without authentication.

mod config;
mod download;
mod legacy;
mod preview;
pub(crate) mod serve;
mod thumbnail;
mod upload;

#[cfg(test)]
mod tests;

use axum::{
    Router,
    routing::{get, post, put},
};

use crate::AppState;

/// Where the authenticated paths are.
// MSC: 3916 used the prefixed path.
const AUTHENTICATED: &[&str] = &["/_matrix/client/v1/media", "/_matrix/client/unstable/org.matrix.msc3916/media"];

/// The routes of this area.
pub(super) fn routes() -> Router<AppState> {
    let mut routes = Router::new()
        .route("/_matrix/media/v1/create", post(upload::create))
        .route("/_matrix/media/unstable/fi.mau.msc2246/create", post(upload::create));
    for base in AUTHENTICATED {
        routes = routes
            .route(&format!("{base}/config"), get(config::get))
            .route(&format!("{base}/preview_url"), get(preview::get))
            .route(&format!("{base}/download/{{server}}/{{id}}"), get(download::get))
            .route(&format!("{base}/download/{{server}}/{{id}}/{{file_name}}"), get(download::get_named))
            .route(&format!("{base}/thumbnail/{{server}}/{{id}}"), get(thumbnail::get));
    }
    for version in ["r0", "v1", "v3"] {
        let base = format!("/_matrix/media/{version}");
        routes = routes
            .route(&format!("{base}/upload"), post(upload::post))
            .route(&format!("{base}/upload/{{server}}/{{id}}"), put(upload::put))
            .route(&format!("{base}/config"), get(config::get))
            .route(&format!("{base}/preview_url"), get(preview::get))
            .route(&format!("{base}/download/{{server}}/{{id}}"), get(legacy::download))
            .route(&format!("{base}/download/{{server}}/{{id}}/{{file_name}}"), get(legacy::download_named))
            .route(&format!("{base}/thumbnail/{{server}}/{{id}}"), get(legacy::thumbnail));
    }
    routes
}

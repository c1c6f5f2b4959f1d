//! `GET /_matrix/federation/v1/media/{download,thumbnail}/{mediaId}`

use std::sync::Arc;

use axum::{Router, extract::State, response::Response, routing::get};
use matron_core::{
    Core,
    media::{Method, ThumbnailRequest},
};
use serde::Deserialize;

use crate::{
    ApiError, AppState,
    client::serve,
    extract::{PathArgs, PeerQuery},
};

/// The routes of this area.
pub(super) fn routes() -> Router<AppState> {
    Router::new()
        .route("/_matrix/federation/v1/media/download/{id}", get(download))
        .route("/_matrix/federation/v1/media/thumbnail/{id}", get(thumbnail))
}

/// How long to wait, ms.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Wait {
    timeout_ms: Option<u64>,
}

/// Which thumbnail.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(super) struct Size {
    width: u32,
    height: u32,
    #[serde(default)]
    method: Method,
    #[serde(default)]
    animated: bool,
    #[serde(default)]
    timeout_ms: Option<u64>,
}

/// Answers one of our files.
///
/// # Errors
/// As [`Core::federation_download`].
pub(super) async fn download(
    State(core): State<Arc<Core>>,
    PathArgs(id): PathArgs<String>,
    PeerQuery { query: wait, .. }: PeerQuery<Wait>,
) -> Result<Response, ApiError> {
    serve::federation(core.federation_download(&id, wait.timeout_ms).await?).await
}

/// Answers a smaller picture of one of our files.
///
/// # Errors
/// As [`Core::federation_thumbnail`].
pub(super) async fn thumbnail(
    State(core): State<Arc<Core>>,
    PathArgs(id): PathArgs<String>,
    PeerQuery { query: size, .. }: PeerQuery<Size>,
) -> Result<Response, ApiError> {
    let Size { width, height, method, animated, .. } = size;
    let request = ThumbnailRequest { width, height, method, animated };
    serve::federation(core.federation_thumbnail(&id, request, size.timeout_ms).await?).await
}

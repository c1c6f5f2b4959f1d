//! `GET /_matrix/client/v1/media/thumbnail/{serverName}/{mediaId}`

use std::sync::Arc;

use axum::{extract::State, response::Response};
use http::HeaderMap;
use matron_core::{
    Core,
    media::{DownloadOptions, Method, Mxc, ThumbnailRequest},
};
use ruma::{OwnedServerName, UserId};
use serde::Deserialize;

use super::serve;
use crate::{
    ApiError,
    extract::{Auth, PathArgs, Query},
};

/// Which thumbnail.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(super) struct Params {
    width: u32,
    height: u32,
    #[serde(default)]
    method: Method,
    #[serde(default)]
    animated: bool,
    #[serde(default)]
    timeout_ms: Option<u64>,
    #[serde(default)]
    allow_remote: Option<bool>,
}

impl Params {
    pub(super) fn parts(self, asker: Option<&UserId>) -> (ThumbnailRequest, DownloadOptions<'_>) {
        let Self { width, height, method, animated, .. } = self;
        let request = ThumbnailRequest { width, height, method, animated };
        let allow_remote = self.allow_remote.unwrap_or(true);
        (request, DownloadOptions { timeout_ms: self.timeout_ms, allow_remote, asker })
    }
}

/// Answers a smaller picture.
///
/// # Errors
/// As [`Core::thumbnail`].
pub(super) async fn get(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    PathArgs((server, id)): PathArgs<(OwnedServerName, String)>,
    Query(params): Query<Params>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let (request, options) = Params { allow_remote: None, ..params }.parts(Some(&requester.user_id));
    let file = core.thumbnail(&Mxc::new(server, &id)?, request, options).await?;
    serve::file(&core, file, &headers).await
}

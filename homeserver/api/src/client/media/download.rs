//! `GET /_matrix/client/v1/media/download/{serverName}/{mediaId}[/{fileName}]`

use std::sync::Arc;

use axum::{extract::State, response::Response};
use http::HeaderMap;
use matron_core::{
    Core,
    media::{DownloadOptions, Mxc},
};
use ruma::OwnedServerName;
use serde::Deserialize;

use super::serve;
use crate::{
    ApiError,
    extract::{Auth, PathArgs, Query},
};

/// How long to wait, ms.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Params {
    timeout_ms: Option<u64>,
}

/// Answers the file.
///
/// # Errors
/// As [`Core::download_media`].
pub(super) async fn get(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    PathArgs((server, id)): PathArgs<(OwnedServerName, String)>,
    Query(params): Query<Params>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let options =
        DownloadOptions { timeout_ms: params.timeout_ms, allow_remote: true, asker: Some(&requester.user_id) };
    let file = core.download_media(&Mxc::new(server, &id)?, options).await?;
    serve::file(&core, file, &headers).await
}

/// As [`get`], under another file name.
///
/// # Errors
/// As [`get`].
pub(super) async fn get_named(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    PathArgs((server, id, file_name)): PathArgs<(OwnedServerName, String, String)>,
    Query(params): Query<Params>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let options =
        DownloadOptions { timeout_ms: params.timeout_ms, allow_remote: true, asker: Some(&requester.user_id) };
    let mut file = core.download_media(&Mxc::new(server, &id)?, options).await?;
    file.file_name = Some(file_name);
    serve::file(&core, file, &headers).await
}

//! `GET /_matrix/media/v3/{download,thumbnail}/…`: frozen, unless the operator allows media without authentication.
//!
//! SPEC: v1.19 Client-Server API, "Content repository": servers should freeze the deprecated endpoints.

use std::sync::Arc;

use axum::{extract::State, response::Response};
use http::HeaderMap;
use matron_core::{
    Core, Error,
    media::{DownloadOptions, Mxc},
};
use ruma::OwnedServerName;
use serde::Deserialize;

use super::{serve, thumbnail};
use crate::{
    ApiError,
    extract::{OptionalAuth, PathArgs, Query},
};

/// How to get it. `allow_redirect` is accepted; nothing is ever redirected.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Params {
    timeout_ms: Option<u64>,
    allow_remote: Option<bool>,
}

/// The freeze.
fn check_open(core: &Core) -> Result<(), Error> {
    if core.settings.unauthenticated_media {
        return Ok(());
    }
    Err(Error::not_found("media is served at /_matrix/client/v1/media, with an access token"))
}

/// Answers the file.
///
/// # Errors
/// `M_NOT_FOUND` while frozen; as [`Core::download_media`].
pub(super) async fn download(
    State(core): State<Arc<Core>>,
    _asked: OptionalAuth,
    PathArgs((server, id)): PathArgs<(OwnedServerName, String)>,
    Query(params): Query<Params>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    check_open(&core)?;
    let file = core.download_media(&Mxc::new(server, &id)?, options(params)).await?;
    serve::file(&core, file, &headers).await
}

/// As [`download`], under another file name.
///
/// # Errors
/// As [`download`].
pub(super) async fn download_named(
    State(core): State<Arc<Core>>,
    _asked: OptionalAuth,
    PathArgs((server, id, file_name)): PathArgs<(OwnedServerName, String, String)>,
    Query(params): Query<Params>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    check_open(&core)?;
    let mut file = core.download_media(&Mxc::new(server, &id)?, options(params)).await?;
    file.file_name = Some(file_name);
    serve::file(&core, file, &headers).await
}

/// Answers a smaller picture.
///
/// # Errors
/// `M_NOT_FOUND` while frozen; as [`Core::thumbnail`].
pub(super) async fn thumbnail(
    State(core): State<Arc<Core>>,
    _asked: OptionalAuth,
    PathArgs((server, id)): PathArgs<(OwnedServerName, String)>,
    Query(params): Query<thumbnail::Params>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    check_open(&core)?;
    let (request, options) = params.parts(None);
    let file = core.thumbnail(&Mxc::new(server, &id)?, request, options).await?;
    serve::file(&core, file, &headers).await
}

fn options(params: Params) -> DownloadOptions<'static> {
    DownloadOptions { timeout_ms: params.timeout_ms, allow_remote: params.allow_remote.unwrap_or(true), asker: None }
}

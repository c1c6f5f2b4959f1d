//! `POST /_matrix/media/v3/upload`, `POST /_matrix/media/v1/create`, `PUT /_matrix/media/v3/upload/{serverName}/{mediaId}`

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    body::Body,
    extract::{Request, State},
};
use http::{
    HeaderMap,
    header::{CONTENT_LENGTH, CONTENT_TYPE},
};
use http_body_util::{BodyExt as _, Limited};
use matron_core::{
    Core, Error,
    media::{Mxc, NewUpload},
};
use ruma::OwnedServerName;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::OwnedSemaphorePermit;

use crate::{
    Answer, Empty, empty,
    extract::{Auth, PathArgs, Query, read_body},
};

/// What the file is called.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Params {
    filename: Option<String>,
}

/// The file is stored; answers its name.
///
/// # Errors
/// As [`Core::upload_media`].
pub(super) async fn post(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    Query(params): Query<Params>,
    request: Request,
) -> Answer {
    core.check_not_suspended(&requester)?;
    let (upload, _budget) = read(&core, params, request).await?;
    let mxc = core.upload_media(&requester.user_id, upload).await?;
    Ok(Json(json!({ "content_uri": mxc.to_string() })))
}

/// There is a name for a file that comes later; answers it.
///
/// # Errors
/// As [`Core::create_media`].
pub(super) async fn create(State(core): State<Arc<Core>>, Auth(requester): Auth) -> Answer {
    core.check_not_suspended(&requester)?;
    let (mxc, unused_expires_at) = core.create_media(&requester.user_id).await?;
    Ok(Json(json!({ "content_uri": mxc.to_string(), "unused_expires_at": unused_expires_at })))
}

/// The file belongs to the name that was created before.
///
/// # Errors
/// As [`Core::upload_pending_media`].
pub(super) async fn put(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    PathArgs((server, id)): PathArgs<(OwnedServerName, String)>,
    Query(params): Query<Params>,
    request: Request,
) -> Answer<Empty> {
    core.check_not_suspended(&requester)?;
    let mxc = Mxc::new(server, &id)?;
    let (upload, _budget) = read(&core, params, request).await?;
    core.upload_pending_media(&requester.user_id, &mxc, upload).await?;
    empty()
}

/// The file, once there is memory for it; a file that says that it is too large is not kept.
async fn read(core: &Core, params: Params, request: Request) -> Result<(NewUpload, OwnedSemaphorePermit), Error> {
    let (parts, body) = request.into_parts();
    let text = |headers: &HeaderMap, name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let announced = text(&parts.headers, CONTENT_LENGTH).and_then(|length| length.parse().ok());
    let max_bytes = core.settings.max_upload_bytes;
    let budget = match core.upload_budget(announced.unwrap_or(max_bytes)).await {
        Ok(budget) => budget,
        Err(refused) => {
            tokio::spawn(discard(body));
            return Err(refused);
        }
    };
    let max_bytes = usize::try_from(max_bytes).unwrap_or(usize::MAX);
    let content = read_body(&parts.headers, body, max_bytes).await?;
    let content_type = text(&parts.headers, CONTENT_TYPE);
    Ok((NewUpload { content_type, file_name: params.filename, content, lifetime_ms: None }, budget))
}

/// How much of a file that is refused is still read, bytes, and for how long.
const DISCARDED_BYTES: usize = 256 * 1024 * 1024;
const DISCARDED_FOR: Duration = Duration::from_secs(20);

/// Reads what comes and forgets it, within bounds: a browser that is still sending when the connection closes
/// sees a broken connection, and never the refusal.
async fn discard(body: Body) {
    let mut body = Limited::new(body, DISCARDED_BYTES);
    let all = async { while body.frame().await.is_some_and(|frame| frame.is_ok()) {} };
    let _ = tokio::time::timeout(DISCARDED_FOR, all).await;
}

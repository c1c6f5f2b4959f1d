//! `/_matrix/client/unstable/org.matrix.msc4108/rendezvous…` and `/_matrix/client/unstable/io.element.msc4388/rendezvous…`
//!
//! Two devices of a person find each other here, one of which is not signed in yet: no token is asked for. The name of a
//! channel cannot be guessed, what it holds is small, encrypted and gone after minutes, and opening one costs an address a lot.
// MSC: 4108 (data as text, versions as entity tags) and 4388 (all in JSON).

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use axum::{
    Json, Router,
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use matron_core::{
    Core, Error,
    oauth::{Channel, MAX_CHANNEL_BYTES},
};
use serde::Deserialize;
use serde_json::json;

use super::unstored;
use crate::{
    Answer, ApiError, AppState, Empty, empty,
    extract::{JsonBody, Limited, OptionalAuth, PathArgs, read_body},
    routing::Routes,
};

/// The largest body with a channel's data in JSON, bytes.
const MAX_BODY_BYTES: usize = 2 * MAX_CHANNEL_BYTES + 1024;

const AS_TEXT: &[&str] = &["unstable/org.matrix.msc4108"];
const AS_JSON: &[&str] = &["unstable/io.element.msc4388"];

/// The routes of this file.
pub(super) fn routes() -> Router<AppState> {
    Router::new()
        .client(AS_TEXT, "/rendezvous", post(open_text))
        .client(AS_TEXT, "/rendezvous/{channel}", get(get_text).put(put_text).delete(delete_text))
        .client(AS_JSON, "/rendezvous", get(discover).post(open))
        .client(AS_JSON, "/rendezvous/{channel}", get(read).put(replace).delete(close))
}

#[derive(Deserialize)]
struct NewData {
    data: String,
}

#[derive(Deserialize)]
struct NextData {
    sequence_token: String,
    data: String,
}

/// A body of text.
async fn text_of(headers: &HeaderMap, body: Body) -> Result<String, Error> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("text/plain") {
        return Err(Error::invalid("a channel's data is text/plain"));
    }
    let bytes = read_body(headers, body, MAX_CHANNEL_BYTES).await?;
    String::from_utf8(bytes.to_vec()).map_err(|_| Error::invalid("a channel's data is text"))
}

/// The answer with what clients must know of the channel's state.
fn with_version(channel: &Channel, answer: impl IntoResponse) -> Response {
    let date = |ms: u64| httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_millis(ms));
    let mut answer = unstored(answer.into_response());
    let told = [
        (header::ETAG, format!("\"{}\"", channel.version)),
        (header::EXPIRES, date(channel.expires_ms)),
        (header::LAST_MODIFIED, date(channel.changed_ms)),
    ];
    for (name, value) in told {
        if let Ok(value) = HeaderValue::from_str(&value) {
            answer.headers_mut().insert(name, value);
        }
    }
    answer
}

fn version_in(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok().map(|tag| tag.trim().trim_start_matches("W/").trim_matches('"'))
}

async fn open_text(
    State(core): State<Arc<Core>>,
    _limited: Limited<10>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    core.check_channels_open()?;
    let channel = core.open_channel(text_of(&headers, body).await?, false)?;
    let url = core.client_url(&format!("unstable/org.matrix.msc4108/rendezvous/{}", channel.id));
    Ok(with_version(&channel, (StatusCode::CREATED, Json(json!({ "url": url })))))
}

async fn get_text(
    State(core): State<Arc<Core>>,
    _limited: Limited<1>,
    PathArgs(id): PathArgs<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    core.check_channels_open()?;
    let channel = core.channel(&id)?;
    if version_in(&headers, header::IF_NONE_MATCH) == Some(&channel.version) {
        return Ok(with_version(&channel, StatusCode::NOT_MODIFIED));
    }
    let kind = [
        (header::CONTENT_TYPE, "text/plain"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CONTENT_SECURITY_POLICY, "sandbox; default-src 'none'"),
    ];
    Ok(with_version(&channel, (kind, channel.data.clone())))
}

async fn put_text(
    State(core): State<Arc<Core>>,
    _limited: Limited<1>,
    PathArgs(id): PathArgs<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    core.check_channels_open()?;
    let version = version_in(&headers, header::IF_MATCH);
    let version = version.ok_or_else(|| Error::MissingParam("`If-Match` is missing".into()))?;
    let data = text_of(&headers, body).await?;
    match core.replace_channel(&id, version, data)? {
        Some(channel) => Ok(with_version(&channel, StatusCode::ACCEPTED)),
        None => {
            let refusal = json!({
                "errcode": "M_UNKNOWN",
                "org.matrix.msc4108.errcode": "M_CONCURRENT_WRITE",
                "error": "the data has changed since",
            });
            Ok(with_version(&core.channel(&id)?, (StatusCode::PRECONDITION_FAILED, Json(refusal))))
        }
    }
}

async fn delete_text(
    State(core): State<Arc<Core>>,
    _limited: Limited<1>,
    PathArgs(id): PathArgs<String>,
) -> Result<StatusCode, ApiError> {
    core.check_channels_open()?;
    core.close_channel(&id)?;
    Ok(StatusCode::NO_CONTENT)
}

async fn discover(State(core): State<Arc<Core>>, OptionalAuth(requester): OptionalAuth) -> Answer {
    Ok(Json(json!({ "create_available": core.may_open_channel(requester.is_some())? })))
}

async fn open(
    State(core): State<Arc<Core>>,
    OptionalAuth(requester): OptionalAuth,
    _limited: Limited<10>,
    JsonBody(body): JsonBody<NewData, MAX_BODY_BYTES>,
) -> Answer {
    let channel = core.open_channel(body.data, requester.is_some())?;
    let expires_in_ms = channel.expires_ms.saturating_sub(core.now_ms());
    Ok(Json(json!({ "id": channel.id, "sequence_token": channel.version, "expires_in_ms": expires_in_ms })))
}

async fn read(
    State(core): State<Arc<Core>>,
    _limited: Limited<1>,
    PathArgs(id): PathArgs<String>,
) -> Result<Response, ApiError> {
    let channel = core.channel(&id)?;
    let expires_in_ms = channel.expires_ms.saturating_sub(core.now_ms());
    let body = json!({
        "data": channel.data, "sequence_token": channel.version, "expires_in_ms": expires_in_ms,
    });
    Ok(unstored(Json(body).into_response()))
}

async fn replace(
    State(core): State<Arc<Core>>,
    _limited: Limited<1>,
    PathArgs(id): PathArgs<String>,
    JsonBody(body): JsonBody<NextData, MAX_BODY_BYTES>,
) -> Answer {
    let channel = core.replace_channel(&id, &body.sequence_token, body.data)?.ok_or(Error::Custom {
        status: 409,
        errcode: "IO_ELEMENT_MSC4388_CONCURRENT_WRITE",
        message: "the data has changed since".into(),
    })?;
    Ok(Json(json!({ "sequence_token": channel.version })))
}

async fn close(State(core): State<Arc<Core>>, _limited: Limited<1>, PathArgs(id): PathArgs<String>) -> Answer<Empty> {
    core.close_channel(&id)?;
    empty()
}

//! Which server asks, as its signature proves.

use std::borrow::Cow;

use axum::{
    body::Body,
    extract::{FromRequest, Request},
};
use bytes::Bytes;
use http::{header::AUTHORIZATION, request::Parts};
use matron_core::{
    Error,
    federation::keys::x_matrix::{HeaderError, XMatrix, canonical_content},
};
use ruma::OwnedServerName;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::Value;

use super::{
    body::{LARGE_JSON_BYTES, parse_json, read_body, refuse_deep},
    params::parse_query,
};
use crate::{ApiError, AppState, middleware::rate_limit};

/// How many `Authorization` headers are tried; a server may sign with several keys.
const MAX_HEADERS: usize = 4;

/// The server that signed the request, where no body is expected. One that comes anyway must be signed too.
///
/// Refusals: 401 `M_UNAUTHORIZED`, `M_FORBIDDEN`, `M_TOO_LARGE`, `M_NOT_JSON`; 429 `M_LIMIT_EXCEEDED` for an address from
/// which too much came that nobody had signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Who asks.
    pub server: OwnedServerName,
}

/// The server that signed the request, and what its query says, which is looked at after the signature.
///
/// Refusals: those of [`Peer`], `M_MISSING_PARAM`, `M_INVALID_PARAM`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerQuery<T> {
    /// Who asks.
    pub server: OwnedServerName,
    /// What it asks for.
    pub query: T,
}

/// The server that signed the request, and its JSON body of at most `MAX` bytes.
///
/// Refusals: those of [`Peer`], `M_MISSING_PARAM`, `M_BAD_JSON`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerJson<T, const MAX: usize = LARGE_JSON_BYTES> {
    /// Who asks.
    pub server: OwnedServerName,
    /// What it sent.
    pub body: T,
}

impl FromRequest<AppState> for Peer {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        let (server, _body) = verify(&parts, body, state, LARGE_JSON_BYTES).await?;
        Ok(Self { server })
    }
}

impl<T: DeserializeOwned> FromRequest<AppState> for PeerQuery<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        let (server, _body) = verify(&parts, body, state, LARGE_JSON_BYTES).await?;
        Ok(Self { server, query: parse_query(&parts)? })
    }
}

impl<T: DeserializeOwned, const MAX: usize> FromRequest<AppState> for PeerJson<T, MAX> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        let (server, bytes) = verify(&parts, body, state, MAX).await?;
        Ok(Self { server, body: parse_json(&bytes)? })
    }
}

/// The server that signed this request, and the body that it signed. A request that nobody signed counts against its address.
async fn verify(
    parts: &Parts,
    body: Body,
    state: &AppState,
    max_bytes: usize,
) -> Result<(OwnedServerName, Bytes), Error> {
    let headers: Vec<&str> = parts
        .headers
        .get_all(AUTHORIZATION)
        .iter()
        .filter_map(|header| header.to_str().ok())
        .take(MAX_HEADERS)
        .filter(|header| !matches!(XMatrix::parse(header), Err(HeaderError::Malformed)))
        .collect();
    // From an address that has used up its failures only servers are listened to whose key is known: behind a proxy that
    // hides addresses they are not made to pay for others, and nobody makes this server ask around for keys.
    let mut known = false;
    for header in &headers {
        known = known || state.core.knows_signing_key(header)?;
    }
    if !known {
        rate_limit::check_failures(parts, state)?;
    }
    match verify_any(parts, body, state, max_bytes, &headers).await {
        Err(refusal @ (Error::Unauthorized(_) | Error::InvalidParam(_))) => {
            rate_limit::count_failure(parts, state)?;
            Err(refusal)
        }
        other => other,
    }
}

/// As [`verify`], by one of these headers.
async fn verify_any(
    parts: &Parts,
    body: Body,
    state: &AppState,
    max_bytes: usize,
    headers: &[&str],
) -> Result<(OwnedServerName, Bytes), Error> {
    let mut refusal = Error::Unauthorized("the request is not signed with X-Matrix".into());
    // Who shows no signature at all is not even listened to.
    if headers.is_empty() {
        return Err(refusal);
    }
    let bytes = read_body(&parts.headers, body, max_bytes).await?;
    let content = if bytes.is_empty() { None } else { Some(signed_content(&bytes)?) };
    let uri = parts.uri.path_and_query().map_or("/", |uri| uri.as_str());
    for header in headers {
        match state.core.verify_x_matrix_text(header, parts.method.as_str(), uri, content.as_deref()).await {
            Ok(server) => return Ok((server, bytes)),
            Err(error @ Error::Unauthorized(_)) => refusal = error,
            Err(error) => return Err(error),
        }
    }
    Err(refusal)
}

/// The body as it was signed.
fn signed_content(bytes: &[u8]) -> Result<Cow<'_, str>, Error> {
    match parse_json::<Value>(bytes) {
        Ok(content) => Ok(Cow::Owned(canonical_content(&content))),
        // What is nested too deep to be read is taken for canonical as it is. One event of that kind, which other servers
        // let through, must not stop all that comes with it.
        Err(refusal) => match (refuse_deep(bytes), parse_json::<IgnoredAny>(bytes), std::str::from_utf8(bytes)) {
            (Err(_deep), Ok(_json), Ok(text)) => Ok(Cow::Borrowed(text)),
            _ => Err(refusal),
        },
    }
}

//! Which server asks, as its signature proves.

use axum::{
    body::Body,
    extract::{FromRequest, Request},
};
use bytes::Bytes;
use http::{header::AUTHORIZATION, request::Parts};
use matron_core::{
    Error,
    federation::keys::x_matrix::{HeaderError, XMatrix},
};
use ruma::OwnedServerName;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::body::{LARGE_JSON_BYTES, parse_json, read_body};
use crate::{ApiError, AppState};

/// How many `Authorization` headers are tried; a server may sign with several keys.
const MAX_HEADERS: usize = 4;

/// The server that signed the request, where no body is expected. One that comes anyway must be signed too.
///
/// Refusals: 401 `M_UNAUTHORIZED`, `M_FORBIDDEN`, `M_TOO_LARGE`, `M_NOT_JSON`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Who asks.
    pub server: OwnedServerName,
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

impl<T: DeserializeOwned, const MAX: usize> FromRequest<AppState> for PeerJson<T, MAX> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        let (server, bytes) = verify(&parts, body, state, MAX).await?;
        Ok(Self { server, body: parse_json(&bytes)? })
    }
}

/// The server that signed this request, and the body that it signed.
async fn verify(
    parts: &Parts,
    body: Body,
    state: &AppState,
    max_bytes: usize,
) -> Result<(OwnedServerName, Bytes), Error> {
    let unauthorized = || Error::Unauthorized("the request is not signed with X-Matrix".into());
    let headers: Vec<&str> = parts
        .headers
        .get_all(AUTHORIZATION)
        .iter()
        .filter_map(|header| header.to_str().ok())
        .take(MAX_HEADERS)
        .filter(|header| !matches!(XMatrix::parse(header), Err(HeaderError::Malformed)))
        .collect();
    // Who shows no signature at all is not even listened to.
    if headers.is_empty() {
        return Err(unauthorized());
    }
    let bytes = read_body(&parts.headers, body, max_bytes).await?;
    let content: Option<Value> = if bytes.is_empty() { None } else { Some(parse_json(&bytes)?) };
    let uri = parts.uri.path_and_query().map_or("/", |uri| uri.as_str());
    let mut refusal = unauthorized();
    for header in headers {
        match state.core.verify_x_matrix(header, parts.method.as_str(), uri, content.as_ref()).await {
            Ok(server) => return Ok((server, bytes)),
            Err(error @ Error::Unauthorized(_)) => refusal = error,
            Err(error) => return Err(error),
        }
    }
    Err(refusal)
}

//! One request, one bounded answer.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{
    HeaderMap, HeaderValue, Method, Request, Response,
    header::{ACCEPT, AUTHORIZATION, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_TYPE, HOST, LOCATION, USER_AGENT},
    uri::PathAndQuery,
};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body as _, Incoming};
use matron_core::ports::{PeerError, PeerResponse};

use crate::{
    dial::{Dialer, Route},
    pool::{Lease, Pool, Room, SMALL_ANSWER_BYTES},
};

/// The error bodies that are worth reading, bytes.
const MAX_ERROR_BYTES: usize = 64 * 1024;

/// JSON, as almost everything.
pub(crate) const JSON: &str = "application/json";

/// A request, complete but for where it goes.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing {
    /// The verb.
    pub(crate) method: Method,
    /// What stands in the request line.
    pub(crate) target: PathAndQuery,
    /// `Authorization`.
    pub(crate) authorization: Option<HeaderValue>,
    /// What is sent.
    pub(crate) body: Option<Bytes>,
    /// What kind of text that is.
    pub(crate) content_type: &'static str,
    /// How long to wait for everything.
    pub(crate) timeout: Duration,
    /// The largest body accepted.
    pub(crate) max_bytes: usize,
}

/// An answer of any status, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The status.
    pub(crate) status: u16,
    /// The headers.
    pub(crate) headers: HeaderMap,
    /// The body.
    pub(crate) body: Bytes,
}

impl Answer {
    /// The answer as the port gives it.
    ///
    /// # Errors
    /// [`PeerError::Status`] for a status outside 2xx, with the body if it is JSON.
    pub(crate) fn into_response(self) -> Result<PeerResponse, PeerError> {
        if !(200..300).contains(&self.status) {
            let body = serde_json::from_slice(&self.body).unwrap_or_default();
            return Err(PeerError::Status { status: self.status, body });
        }
        let text = |name| self.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        Ok(PeerResponse {
            status: self.status,
            content_type: text(CONTENT_TYPE),
            content_disposition: text(CONTENT_DISPOSITION),
            location: text(LOCATION),
            body: self.body,
        })
    }
}

/// A body together with the room that it takes.
struct LargeBody {
    bytes: Bytes,
    _room: Room,
}

impl AsRef<[u8]> for LargeBody {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Carries out requests over pooled connections.
#[derive(Debug)]
pub(crate) struct Exchanger {
    /// Opens connections.
    pub(crate) dialer: Dialer,
    /// Keeps them.
    pub(crate) pool: Pool,
}

impl Exchanger {
    /// The answer of whoever is at the end of the route.
    ///
    /// A kept connection that turns out to be dead is replaced once, unless the request might have been acted on
    /// and may not be repeated.
    ///
    /// # Errors
    /// [`PeerError`], but never [`PeerError::Status`].
    pub(crate) async fn exchange(&self, key: &str, route: &Route, outgoing: &Outgoing) -> Result<Answer, PeerError> {
        let whole = async {
            match self.attempt(key, route, outgoing, false).await {
                Err(Failure::Stale) => match self.attempt(key, route, outgoing, true).await {
                    Err(Failure::Stale) => Err(PeerError::Connect("the connection was closed".to_owned())),
                    Err(Failure::Final(error)) => Err(error),
                    Ok(answer) => Ok(answer),
                },
                Err(Failure::Final(error)) => Err(error),
                Ok(answer) => Ok(answer),
            }
        };
        tokio::time::timeout(outgoing.timeout, whole).await.unwrap_or(Err(PeerError::Timeout))
    }

    async fn attempt(&self, key: &str, route: &Route, outgoing: &Outgoing, fresh: bool) -> Result<Answer, Failure> {
        let mut lease = self.pool.lease(&self.dialer, key, route, fresh).await.map_err(Failure::Final)?;
        let request = build(route, outgoing).map_err(Failure::Final)?;
        let response = match lease.sender.try_send_request(request).await {
            Ok(response) => response,
            Err(mut error) => {
                let unsent = error.take_message().is_some();
                let repeatable = unsent || outgoing.method != Method::POST;
                let error = error.into_error();
                let dead = error.is_canceled() || error.is_closed() || error.is_incomplete_message();
                return Err(if lease.reused && repeatable && (unsent || dead) {
                    Failure::Stale
                } else {
                    Failure::Final(PeerError::Connect(describe(&error)))
                });
            }
        };
        let answer = self.read(response, outgoing.max_bytes, &lease).await.map_err(Failure::Final)?;
        self.return_lease(lease, &answer);
        Ok(answer)
    }

    /// Reads the body within its bound; more is refused as soon as it shows. A large one holds room until it is dropped.
    async fn read(&self, response: Response<Incoming>, max_bytes: usize, lease: &Lease) -> Result<Answer, PeerError> {
        let (parts, mut body) = response.into_parts();
        let status = parts.status.as_u16();
        let max_bytes = if parts.status.is_success() { max_bytes } else { MAX_ERROR_BYTES };
        if body.size_hint().lower() > u64::try_from(max_bytes).unwrap_or(u64::MAX) {
            return Err(PeerError::TooLarge);
        }
        let mut bytes = BytesMut::new();
        let mut room = self.pool.room_for(lease)?;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| PeerError::Connect(describe(&error)))?;
            let Ok(data) = frame.into_data() else { continue };
            let len = bytes.len().saturating_add(data.len());
            if len > max_bytes {
                return Err(PeerError::TooLarge);
            }
            room.grow_to(len)?;
            bytes.extend_from_slice(&data);
        }
        let bytes = bytes.freeze();
        let is_large = bytes.len() > SMALL_ANSWER_BYTES;
        let body = if is_large { Bytes::from_owner(LargeBody { bytes, _room: room }) } else { bytes };
        Ok(Answer { status, headers: parts.headers, body })
    }

    fn return_lease(&self, lease: Lease, answer: &Answer) {
        let closes = answer
            .headers
            .get(http::header::CONNECTION)
            .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"close"));
        if !closes {
            self.pool.give_back(lease);
        }
    }
}

/// What ended an attempt.
enum Failure {
    /// The kept connection was dead; a new one may serve.
    Stale,
    /// Trying again would not help.
    Final(PeerError),
}

fn build(route: &Route, outgoing: &Outgoing) -> Result<Request<Full<Bytes>>, PeerError> {
    let malformed = |_error| PeerError::Malformed("the request cannot be written".to_owned());
    let host = HeaderValue::from_str(&route.host_header)
        .map_err(|_invalid| PeerError::Resolve("its name cannot be written in a header".to_owned()))?;
    let body = outgoing.body.clone();
    let mut builder = Request::builder()
        .method(outgoing.method.clone())
        .uri(outgoing.target.as_str())
        .header(HOST, host)
        .header(USER_AGENT, concat!("Matron/", env!("CARGO_PKG_VERSION")))
        .header(ACCEPT, "*/*");
    if let Some(authorization) = &outgoing.authorization {
        builder = builder.header(AUTHORIZATION, authorization);
    }
    if let Some(body) = &body {
        builder = builder.header(CONTENT_TYPE, outgoing.content_type).header(CONTENT_LENGTH, body.len());
    }
    builder.body(Full::new(body.unwrap_or_default())).map_err(malformed)
}

/// The error in words, its cause included, nothing of the request.
fn describe(error: &hyper::Error) -> String {
    use std::error::Error as _;
    error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}

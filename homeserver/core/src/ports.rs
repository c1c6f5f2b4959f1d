//! The outside world, as traits: the clock, other servers, plain HTTP. `matron-net` implements them.

use std::{fmt::Debug, time::Duration};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use ruma::OwnedServerName;

/// Where the time comes from.
pub trait Clock: Send + Sync + Debug {
    /// Milliseconds since the Unix epoch.
    fn now_ms(&self) -> u64;
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_ms(&self) -> u64 {
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

/// A request to another homeserver. The carrier finds the server, speaks TLS and, if `signed`, adds X-Matrix.
#[derive(Clone, Debug)]
pub struct FederationRequest {
    /// Which server.
    pub destination: OwnedServerName,
    /// `GET`, `PUT`, `POST`.
    pub method: http_method::Method,
    /// Path and query, percent-encoded, beginning with `/_matrix/`.
    pub path_and_query: String,
    /// The JSON body, if any.
    pub body: Option<serde_json::Value>,
    /// Whether to sign with X-Matrix.
    pub signed: bool,
    /// How long to wait for the whole answer.
    pub timeout: Duration,
    /// The largest body accepted, bytes.
    pub max_bytes: usize,
}

/// The verbs that Matron uses towards others.
pub mod http_method {
    /// An HTTP verb.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Method {
        /// `GET`
        Get,
        /// `PUT`
        Put,
        /// `POST`
        Post,
    }
}

/// An answer with status 2xx.
#[derive(Clone, Debug)]
pub struct PeerResponse {
    /// The status.
    pub status: u16,
    /// `Content-Type`, if given.
    pub content_type: Option<String>,
    /// `Content-Disposition`, if given.
    pub content_disposition: Option<String>,
    /// `Location`, if given.
    pub location: Option<String>,
    /// The body, within the request's bound.
    pub body: Bytes,
}

/// Why a peer gave no usable answer.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// The name leads nowhere, or only to addresses that are refused.
    #[error("cannot find the server: {0}")]
    Resolve(String),
    /// No connection, TLS refused, or it broke.
    #[error("cannot reach the server: {0}")]
    Connect(String),
    /// No answer in time.
    #[error("the server did not answer in time")]
    Timeout,
    /// The answer is larger than the bound.
    #[error("the server's answer is too large")]
    TooLarge,
    /// The server is waiting out a backoff and was not asked.
    #[error("the server failed lately and is not asked before {until_ms}")]
    Backoff { until_ms: u64 },
    /// A status outside 2xx; `body` is JSON if it was, else null.
    #[error("the server answered {status}")]
    Status { status: u16, body: serde_json::Value },
    /// The answer is not what the specification demands.
    #[error("the server's answer is malformed: {0}")]
    Malformed(String),
}

/// A plain HTTP request to a configured service: an application service or a push gateway.
#[derive(Clone, Debug)]
pub struct OutboundRequest {
    /// Whether the operator's configuration names this URL: then it may lead to a private address.
    /// `false` for every URL that a user or another server chose.
    pub trusted: bool,
    /// The verb.
    pub method: http_method::Method,
    /// The whole URL.
    pub url: String,
    /// `Authorization: Bearer`, if any.
    pub bearer: Option<String>,
    /// The JSON body, if any.
    pub body: Option<serde_json::Value>,
    /// How long to wait for the whole answer.
    pub timeout: Duration,
    /// The largest body accepted, bytes.
    pub max_bytes: usize,
}

/// How a request to an identity server proves itself.
#[derive(Clone, PartialEq, Eq)]
pub enum IdentityProof {
    /// Not at all: anyone may ask this.
    None,
    /// By a user's token for this identity server.
    UserToken(String),
    /// With X-Matrix, as a homeserver.
    Signed,
}

impl Debug for IdentityProof {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::None => "None",
            Self::UserToken(_) => "UserToken",
            Self::Signed => "Signed",
        })
    }
}

/// A request to an identity server, over HTTPS to its name as it stands.
#[derive(Clone, Debug)]
pub struct IdentityRequest {
    /// Which one: a name, with a port unless it is 443.
    pub server: OwnedServerName,
    /// As in [`OutboundRequest`].
    pub trusted: bool,
    /// The verb.
    pub method: http_method::Method,
    /// Path and query, percent-encoded.
    pub path_and_query: String,
    /// How it proves itself.
    pub proof: IdentityProof,
    /// The JSON body, if any.
    pub body: Option<serde_json::Value>,
    /// How long to wait for the whole answer.
    pub timeout: Duration,
    /// The largest body accepted, bytes.
    pub max_bytes: usize,
}

/// A letter in plain ASCII to one person, by the operator's mail server.
#[derive(Clone)]
pub struct Letter {
    /// The mail server, and who writes.
    pub relay: crate::settings::Email,
    /// What makes the letter's id unique.
    pub id: String,
    /// The address.
    pub to: String,
    /// What it is about.
    pub subject: String,
    /// The text, in lines.
    pub text: String,
    /// How long the mail server may take.
    pub timeout: Duration,
}

impl Debug for Letter {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Letter").field("id", &self.id).finish_non_exhaustive()
    }
}

/// How grave a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Grade {
    /// As it should be.
    Good,
    /// Worth knowing.
    Note,
    /// To be put right.
    Bad,
}

/// One thing found out about the way to another server, in plain words.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    /// How grave it is.
    pub grade: Grade,
    /// What was looked at: `DNS`, `TLS`, …
    pub what: String,
    /// What was found.
    pub sentence: String,
}

impl Finding {
    /// A finding.
    #[must_use]
    pub fn new(grade: Grade, what: &str, sentence: impl Into<String>) -> Self {
        Self { grade, what: what.to_owned(), sentence: sentence.into() }
    }
}

/// A time in the largest unit that fits, in words.
#[must_use]
pub fn span(ms: u64) -> String {
    let seconds = ms / 1_000;
    let (count, unit) = match seconds {
        0..120 => (seconds, "second"),
        120..7_200 => (seconds / 60, "minute"),
        7_200..172_800 => (seconds / 3_600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    if count == 1 { format!("1 {unit}") } else { format!("{count} {unit}s") }
}

/// A form sent to a configured service: an identity provider's token endpoint.
#[derive(Clone)]
pub struct OutboundForm {
    /// As in [`OutboundRequest`].
    pub trusted: bool,
    /// The whole URL.
    pub url: String,
    /// The form, encoded.
    pub form: String,
    /// Name and secret for `Authorization: Basic`.
    pub basic: Option<(String, String)>,
    /// How long to wait for the whole answer.
    pub timeout: Duration,
    /// The largest body accepted, bytes.
    pub max_bytes: usize,
}

impl Debug for OutboundForm {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("OutboundForm").field("url", &self.url).finish_non_exhaustive()
    }
}

/// Other servers, reached.
pub trait Federation: Send + Sync + Debug {
    /// Sends one request to a homeserver.
    ///
    /// # Errors
    /// [`PeerError`]; a status outside 2xx is an error.
    fn request(&self, request: FederationRequest) -> BoxFuture<'_, Result<PeerResponse, PeerError>>;

    /// Sends one request to a configured service.
    ///
    /// # Errors
    /// As [`Federation::request`].
    fn outbound(&self, request: OutboundRequest) -> BoxFuture<'_, Result<PeerResponse, PeerError>>;

    /// Posts one form to a configured service.
    ///
    /// # Errors
    /// As [`Federation::request`].
    fn outbound_form(&self, _form: OutboundForm) -> BoxFuture<'_, Result<PeerResponse, PeerError>> {
        Box::pin(async { Err(PeerError::Resolve("forms cannot be sent from here".to_owned())) })
    }

    /// Sends one request to an identity server.
    ///
    /// # Errors
    /// As [`Federation::request`].
    fn identity(&self, _request: IdentityRequest) -> BoxFuture<'_, Result<PeerResponse, PeerError>> {
        Box::pin(async { Err(PeerError::Resolve("identity servers cannot be reached from here".to_owned())) })
    }

    /// Hands one letter to the operator's mail server.
    ///
    /// # Errors
    /// As [`Federation::request`]; the status is SMTP's.
    fn mail(&self, _letter: Letter) -> BoxFuture<'_, Result<(), PeerError>> {
        Box::pin(async { Err(PeerError::Resolve("no letters are sent from here".to_owned())) })
    }

    /// Forgets that a server failed lately, because it was heard from.
    fn heard_from(&self, server: &ruma::ServerName);

    /// The way to the server, step by step, nothing remembered: name, address, TLS, answer, clock.
    fn probe<'a>(&'a self, _server: &'a ruma::ServerName) -> BoxFuture<'a, Vec<Finding>> {
        Box::pin(async { Vec::new() })
    }
}

/// A world without other servers, for a server that does not federate.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoFederation;

impl Federation for NoFederation {
    fn request(&self, _request: FederationRequest) -> BoxFuture<'_, Result<PeerResponse, PeerError>> {
        Box::pin(async { Err(PeerError::Resolve("federation is switched off".to_owned())) })
    }

    fn outbound(&self, _request: OutboundRequest) -> BoxFuture<'_, Result<PeerResponse, PeerError>> {
        Box::pin(async { Err(PeerError::Resolve("outgoing connections are switched off".to_owned())) })
    }

    fn heard_from(&self, _server: &ruma::ServerName) {}
}

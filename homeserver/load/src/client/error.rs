//! Why a request gave no usable answer.

use std::fmt;

use hyper::{Method, StatusCode};
use thiserror::Error;

use crate::error::with_causes;

/// How much of an error's body is shown, in bytes.
const SHOWN_BYTES: usize = 300;

/// A request that gave no usable answer.
#[derive(Debug, Error)]
#[error("{call}")]
pub struct RequestError {
    call: Call,
    #[source]
    fault: Box<Fault>,
}

/// Which request it was; the path has no token in it.
#[derive(Debug)]
enum Call {
    Request { method: Method, path: String },
    Answer,
}

#[derive(Debug, Error)]
pub(crate) enum Fault {
    #[error("the request cannot be built")]
    Request(#[from] hyper::http::Error),
    #[error("no connection, or it broke")]
    Connection(#[from] hyper_util::client::legacy::Error),
    #[error("the answer broke off or is too large")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("no answer in time")]
    Timeout,
    #[error("told to wait too often (429)")]
    Limited,
    #[error("{status} {body}")]
    Refused { status: StatusCode, body: String },
    #[error("unexpected JSON")]
    Json(#[source] serde_json::Error),
    #[error("the answer has no {0}")]
    Missing(&'static str),
    #[error("no flow of registration can be met with --registration as it is")]
    NoFlow,
}

impl Fault {
    /// An answer other than 200.
    pub(crate) fn refused(status: StatusCode, body: &[u8]) -> Self {
        let shown = body.get(..SHOWN_BYTES).unwrap_or(body);
        Self::Refused { status, body: String::from_utf8_lossy(shown).into_owned() }
    }
}

impl RequestError {
    pub(crate) fn new(method: &Method, path: &str, fault: Fault) -> Self {
        Self { call: Call::Request { method: method.clone(), path: path.to_owned() }, fault: Box::new(fault) }
    }

    /// An answer without what its kind always has.
    pub(crate) fn missing(what: &'static str) -> Self {
        Self { call: Call::Answer, fault: Box::new(Fault::Missing(what)) }
    }

    /// The error and everything behind it, in one line.
    pub(crate) fn with_causes(&self) -> String {
        with_causes(self)
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request { method, path } => write!(f, "{method} {path}"),
            Self::Answer => f.write_str("an answer"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_which_request_and_why() {
        let fault = Fault::refused(StatusCode::FORBIDDEN, br#"{"errcode":"M_FORBIDDEN"}"#);
        let error = RequestError::new(&Method::GET, "/_matrix/client/v3/sync", fault);
        assert_eq!(error.with_causes(), r#"GET /_matrix/client/v3/sync: 403 Forbidden {"errcode":"M_FORBIDDEN"}"#);
        assert_eq!(RequestError::missing("room_id").with_causes(), "an answer: the answer has no room_id");
    }
}

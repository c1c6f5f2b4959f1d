//! What can go wrong on the way to the homeserver.

use thiserror::Error;

/// Why a request to the homeserver gave no usable answer.
#[derive(Debug, Error)]
pub enum ClientError {
    /// The configured address of the homeserver is no http(s) URL.
    #[error("the homeserver address is not an http or https URL")]
    Address,
    /// The extra CA file, or the roots, cannot be used.
    #[error("the certificate authorities cannot be loaded")]
    Roots(#[source] std::io::Error),
    /// TLS cannot be set up.
    #[error("TLS cannot be set up")]
    Tls(#[from] rustls::Error),
    /// A request could not be built.
    #[error("the request could not be built")]
    Request(#[from] http::Error),
    /// No connection, or it broke.
    #[error("the homeserver cannot be reached")]
    Unreachable(#[from] hyper_util::client::legacy::Error),
    /// The answer broke off or was larger than the limit.
    #[error("the homeserver's answer could not be read")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// No answer in time.
    #[error("the homeserver did not answer in time")]
    Timeout,
    /// The homeserver answered with an error.
    #[error("the homeserver refused: {status} {errcode}")]
    Refused {
        /// HTTP status code.
        status: u16,
        /// The Matrix errcode, or `M_UNKNOWN` where the answer had none.
        errcode: String,
        /// `retry_after_ms` of a 429, in milliseconds.
        retry_after_ms: Option<u64>,
    },
    /// The answer, or the request, is no JSON of the expected shape.
    #[error("unexpected JSON")]
    Json(#[from] serde_json::Error),
}

impl ClientError {
    /// True for a refusal with this errcode.
    #[must_use]
    pub fn is_errcode(&self, wanted: &str) -> bool {
        matches!(self, Self::Refused { errcode, .. } if errcode == wanted)
    }

    /// True for a refusal with this HTTP status.
    #[must_use]
    pub fn is_status(&self, wanted: u16) -> bool {
        matches!(self, Self::Refused { status, .. } if *status == wanted)
    }

    /// True where trying the same request again later may help.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Body(_) | Self::Timeout => true,
            Self::Refused { status, .. } => *status == 429 || *status >= 500,
            Self::Address | Self::Roots(_) | Self::Tls(_) | Self::Request(_) | Self::Json(_) => false,
        }
    }
}

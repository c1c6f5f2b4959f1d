//! Why an OAuth request was refused, in OAuth's own words.

use crate::error::Sentence;

/// Why an OAuth request was refused. `matron-api` answers it as RFC 6749 says, or at the client's redirect URI.
#[derive(Debug, thiserror::Error)]
pub enum OAuthError {
    /// The client is told.
    #[error("{}: {}", .0.code, .0.description)]
    Refused(Refusal),
    /// Something that has nothing to do with OAuth.
    #[error(transparent)]
    Core(#[from] crate::Error),
}

/// An error code and a sentence (RFC 6749, section 5.2, and its extensions).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Such as `invalid_grant`.
    pub code: &'static str,
    /// For a developer.
    pub description: Sentence,
}

impl OAuthError {
    /// A refusal with this code and sentence.
    pub fn refused(code: &'static str, description: impl Into<Sentence>) -> Self {
        Self::Refused(Refusal { code, description: description.into() })
    }

    pub(super) fn invalid_request(description: impl Into<Sentence>) -> Self {
        Self::refused("invalid_request", description)
    }

    pub(super) fn invalid_grant(description: impl Into<Sentence>) -> Self {
        Self::refused("invalid_grant", description)
    }

    pub(super) fn invalid_client() -> Self {
        Self::refused("invalid_client", "this client is not registered")
    }
}

//! One question to an identity server, with a bound on its answer and its time.

use std::time::Duration;

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::trust::Trusted;
use crate::{
    Core, Error,
    ports::{IdentityProof, IdentityRequest, PeerError, http_method::Method},
};

/// How long an identity server may take.
const TIMEOUT: Duration = Duration::from_secs(15);

/// The largest answer of an identity server, bytes.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// The longest token, bytes.
const MAX_TOKEN_BYTES: usize = 4096;

/// The token by which a user proves to an identity server who they are. It lives as long as the request that brings it.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub struct IdentityToken(String);

impl std::fmt::Debug for IdentityToken {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("IdentityToken")
    }
}

impl IdentityToken {
    /// The token as proof.
    ///
    /// # Errors
    /// [`Error::InvalidParam`] for what cannot stand in a header.
    pub(super) fn proof(&self) -> Result<IdentityProof, Error> {
        let Self(token) = self;
        if token.is_empty() || token.len() > MAX_TOKEN_BYTES || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Error::invalid("`id_access_token` is no token"));
        }
        Ok(IdentityProof::UserToken(token.clone()))
    }
}

/// What is asked of an identity server.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) method: Method,
    pub(super) path_and_query: String,
    pub(super) proof: IdentityProof,
    pub(super) body: Option<Value>,
}

/// Why an identity server gave no answer.
#[derive(Debug)]
pub(super) enum Unanswered {
    /// It says, by a status without a Matrix error, that it does not do this.
    Unsupported,
    /// Anything else.
    Failed(Error),
}

impl From<Unanswered> for Error {
    fn from(unanswered: Unanswered) -> Self {
        match unanswered {
            Unanswered::Unsupported => Self::Peer("the identity server does not support this".into()),
            Unanswered::Failed(error) => error,
        }
    }
}

impl Core {
    /// The answer of an identity server.
    ///
    /// # Errors
    /// [`Unanswered`]; what the identity server refuses is passed on.
    pub(super) async fn ask_identity_server<T: DeserializeOwned>(
        &self,
        server: &Trusted,
        question: Question,
    ) -> Result<T, Unanswered> {
        let request = IdentityRequest {
            server: server.name.clone(),
            trusted: server.by_name,
            method: question.method,
            path_and_query: question.path_and_query,
            proof: question.proof,
            body: question.body,
            timeout: TIMEOUT,
            max_bytes: MAX_ANSWER_BYTES,
        };
        match self.federation.identity(request).await {
            Ok(response) => serde_json::from_slice(&response.body).map_err(|_| Unanswered::Failed(malformed())),
            Err(PeerError::Status { status, body }) => Err(refused(status, &body)),
            Err(error) => {
                tracing::debug!(peer.name = %server.name, %error, "an identity server did not answer");
                Err(Unanswered::Failed(Error::Peer(format!("the identity server failed to answer: {error}").into())))
            }
        }
    }
}

/// The error for an answer that is not what the specification demands.
pub(super) fn malformed() -> Error {
    Error::Peer("the identity server's answer is malformed".into())
}

/// An identity server's refusal as the client sees it. What it says of its own token must not be taken for a word on the
/// session with this server, or clients would log out.
fn refused(status: u16, body: &Value) -> Unanswered {
    let text = |field: &str| body.get(field).and_then(Value::as_str);
    let Some(errcode) = text("errcode") else {
        return match status {
            400 | 404 | 501 => Unanswered::Unsupported,
            _ => Unanswered::Failed(Error::Peer(format!("the identity server answered {status}").into())),
        };
    };
    if !(400..500).contains(&status) {
        return Unanswered::Failed(Error::Peer(format!("the identity server answered {status}").into()));
    }
    let (status, errcode) = match (status, errcode) {
        (401, _) | (_, "M_UNKNOWN_TOKEN" | "M_MISSING_TOKEN" | "M_USER_LOCKED") => (403, "M_UNAUTHORIZED".to_owned()),
        (status, errcode) => (status, errcode.chars().filter(char::is_ascii_graphic).take(100).collect()),
    };
    let sentence: String =
        text("error").unwrap_or("the identity server refused").chars().filter(|c| !c.is_control()).take(300).collect();
    Unanswered::Failed(Error::PeerAnswer { status, body: Box::new(json!({"errcode": errcode, "error": sentence})) })
}

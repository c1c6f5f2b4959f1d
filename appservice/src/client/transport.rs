//! One request, with its time limit, size limit and bounded retries.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client as Pool;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rand::RngExt as _;
use serde::Deserialize;

use super::connector::Connector;
use super::error::ClientError;
use crate::secret::Secret;

/// Largest answer that is read, in bytes.
const MAX_ANSWER_BYTES: usize = 32 * 1024 * 1024;
/// Tries of one request, the first included.
const MAX_ATTEMPTS: u32 = 6;
/// Longest pause between two tries that a homeserver may ask for.
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// May a request be sent again when nobody knows whether it took effect?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// It has the same effect however often it is sent.
    Idempotent,
    /// Only when the homeserver said that it did nothing (429), or no connection opened.
    OnlyUntouched,
    /// Never.
    Never,
}

/// One request to the homeserver.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    pub(crate) method: Method,
    /// Path and query, percent-encoded.
    pub(crate) path: String,
    pub(crate) token: &'a Secret,
    pub(crate) body: Bytes,
    pub(crate) content_type: &'static str,
    pub(crate) timeout: Duration,
    pub(crate) repeat: Repeat,
}

/// The pooled connection to one homeserver.
pub(crate) struct Transport {
    base: String,
    pool: Pool<Connector, Full<Bytes>>,
}

impl std::fmt::Debug for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transport").field("base", &self.base).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct ErrorBody {
    errcode: Option<String>,
    retry_after_ms: Option<u64>,
}

impl Transport {
    /// A transport to `base`, an `http://` or `https://` URL.
    pub(crate) fn new(base: &str, ca_file: Option<&Path>) -> Result<Self, ClientError> {
        let base = base.trim_end_matches('/');
        let uri: http::Uri = base.parse().map_err(|_invalid| ClientError::Address)?;
        let connector = match uri.scheme_str() {
            Some("http") => Connector::plain(),
            Some("https") => Connector::tls(ca_file)?,
            _ => return Err(ClientError::Address),
        };
        let pool = Pool::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(20))
            .build(connector);
        Ok(Self { base: base.to_owned(), pool })
    }

    /// Sends until answered, refused for good, or out of tries.
    pub(crate) async fn send(&self, call: Call<'_>) -> Result<Bytes, ClientError> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let error = match tokio::time::timeout(call.timeout, self.send_once(&call)).await {
                Ok(Ok(body)) => return Ok(body),
                Ok(Err(error)) => error,
                Err(_elapsed) => ClientError::Timeout,
            };
            if attempt >= MAX_ATTEMPTS || !may_repeat(call.repeat, &error) {
                return Err(error);
            }
            let pause = pause(attempt, &error, rand::rng().random_range(0..=100));
            tracing::debug!(attempt, pause_ms = pause.as_millis(), %error, "request is repeated");
            tokio::time::sleep(pause).await;
        }
    }

    async fn send_once(&self, call: &Call<'_>) -> Result<Bytes, ClientError> {
        let request = Request::builder()
            .method(call.method.clone())
            .uri(format!("{}{}", self.base, call.path))
            .header(AUTHORIZATION, format!("Bearer {}", call.token.expose()))
            .header(CONTENT_TYPE, call.content_type)
            .body(Full::new(call.body.clone()))?;
        let response = self.pool.request(request).await?;
        let status = response.status();
        let retry_after_s = response
            .headers()
            .get(RETRY_AFTER)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.parse::<u64>().ok());
        let body =
            Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await.map_err(ClientError::Body)?.to_bytes();
        if status.is_success() {
            return Ok(body);
        }
        Err(refusal(status, &body, retry_after_s))
    }
}

fn refusal(status: StatusCode, body: &[u8], retry_after_s: Option<u64>) -> ClientError {
    let parsed = serde_json::from_slice::<ErrorBody>(body).ok();
    let (errcode, retry_after_ms) = parsed.map_or((None, None), |parsed| (parsed.errcode, parsed.retry_after_ms));
    ClientError::Refused {
        status: status.as_u16(),
        // The errcode goes to logs: only what looks like one does.
        errcode: errcode
            .filter(|code| {
                code.len() <= 64 && code.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.'))
            })
            .unwrap_or_else(|| "M_UNKNOWN".to_owned()),
        retry_after_ms: retry_after_ms.or(retry_after_s.map(|s| s.saturating_mul(1000))),
    }
}

fn may_repeat(repeat: Repeat, error: &ClientError) -> bool {
    match repeat {
        Repeat::Never => false,
        Repeat::Idempotent => error.is_transient(),
        Repeat::OnlyUntouched => match error {
            ClientError::Unreachable(error) => error.is_connect(),
            error => error.is_status(429),
        },
    }
}

/// Doubles from 200 ms with up to half as much again at random; a homeserver's own wish goes first.
fn pause(attempt: u32, error: &ClientError, jitter_percent: u32) -> Duration {
    if let ClientError::Refused { retry_after_ms: Some(wish), .. } = error {
        return Duration::from_millis(*wish).min(MAX_PAUSE);
    }
    let base = Duration::from_millis(100).saturating_mul(1 << attempt.min(8));
    base.saturating_add(base.saturating_mul(jitter_percent) / 200).min(MAX_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: u16, retry_after_ms: Option<u64>) -> ClientError {
        ClientError::Refused { status, errcode: "M_UNKNOWN".to_owned(), retry_after_ms }
    }

    #[test]
    fn a_room_is_not_created_twice_after_a_server_error() {
        assert!(!may_repeat(Repeat::OnlyUntouched, &refused(502, None)));
        assert!(may_repeat(Repeat::OnlyUntouched, &refused(429, None)));
        assert!(may_repeat(Repeat::Idempotent, &refused(502, None)));
        assert!(!may_repeat(Repeat::Idempotent, &refused(403, None)));
    }

    #[test]
    fn pauses_grow_and_stay_bounded() {
        let plain = refused(500, None);
        assert!(pause(1, &plain, 0) < pause(2, &plain, 0));
        assert!(pause(40, &plain, 100) <= MAX_PAUSE);
        assert_eq!(pause(1, &refused(429, Some(1234)), 0), Duration::from_millis(1234));
        assert_eq!(pause(1, &refused(429, Some(u64::MAX)), 0), MAX_PAUSE);
    }

    #[test]
    fn only_what_looks_like_an_errcode_is_kept() {
        let error = refusal(StatusCode::FORBIDDEN, br#"{"errcode":"Jane Doe, ward 3"}"#, Some(2));
        assert!(error.is_errcode("M_UNKNOWN"));
        assert!(refusal(StatusCode::FORBIDDEN, br#"{"errcode":"M_FORBIDDEN"}"#, None).is_errcode("M_FORBIDDEN"));
    }
}

//! A light Matrix client over HTTP/1.1 with keep-alive: what the load needs and no more.

mod accounts;
mod error;
mod history;
mod rooms;
mod sync;

use std::cell::Cell;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE};
use hyper::{Method, Request, StatusCode};
use hyper_util::client::legacy::{Client as Pool, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

pub(crate) use accounts::{Registration, User};
use error::Fault;
pub use error::RequestError;
pub(crate) use history::Page;
pub(crate) use sync::{Event, Presence, SyncRequest};

/// Longest wait for an answer; a long poll is shorter.
const PATIENCE: Duration = Duration::from_secs(180);
/// Largest answer that is read, in bytes: the first sync of a very large account.
const MAX_ANSWER_BYTES: usize = 512 * 1024 * 1024;
/// How often one request may be told to wait (429).
const MAX_WAITS: u32 = 100;
/// RFC 3986: what needs no percent-encoding in a segment of a path.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// One homeserver's client API.
pub(crate) struct Homeserver {
    base: String,
    registration: Registration,
    room_version: Option<String>,
    pool: Pool<HttpConnector, Full<Bytes>>,
    /// How many answers were 429.
    pub(crate) rate_limited: Cell<u64>,
}

#[derive(Deserialize)]
struct Wait {
    retry_after_ms: Option<u64>,
}

/// `text` as a segment of a path or a value of a query.
pub(crate) fn encoded(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
}

impl Homeserver {
    /// The homeserver at `base`, an `http://` URL. Rooms are created with `room_version`, or with its own default.
    pub(crate) fn new(base: &str, registration: Registration, room_version: Option<String>) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let pool = Pool::builder(TokioExecutor::new()).build(connector);
        let base = base.trim_end_matches('/').to_owned();
        Self { base, registration, room_version, pool, rate_limited: Cell::new(0) }
    }

    /// Its URL, without a slash at the end.
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    /// Status and body of the answer. Answers of 429 are waited out and counted.
    pub(crate) async fn ask(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        body: Option<&Value>,
    ) -> Result<(StatusCode, Bytes), RequestError> {
        let payload = body.map(|body| Bytes::from(body.to_string()));
        for _ in 0..MAX_WAITS {
            let asked = self.ask_once(&method, path, token, payload.clone());
            let answered = tokio::time::timeout(PATIENCE, asked).await.unwrap_or(Err(Fault::Timeout));
            let (status, answer) = answered.map_err(|fault| RequestError::new(&method, path, fault))?;
            if status != StatusCode::TOO_MANY_REQUESTS {
                return Ok((status, answer));
            }
            self.rate_limited.set(self.rate_limited.get() + 1);
            let wait_ms = serde_json::from_slice::<Wait>(&answer).ok().and_then(|wait| wait.retry_after_ms);
            tokio::time::sleep(Duration::from_millis(wait_ms.unwrap_or(500).clamp(20, 30_000))).await;
        }
        Err(RequestError::new(&method, path, Fault::Limited))
    }

    async fn ask_once(
        &self,
        method: &Method,
        path: &str,
        token: Option<&str>,
        payload: Option<Bytes>,
    ) -> Result<(StatusCode, Bytes), Fault> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        if let Some(token) = token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        if payload.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let request = request.body(Full::new(payload.unwrap_or_default()))?;
        let response = self.pool.request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await.map_err(Fault::Body)?;
        Ok((status, body.to_bytes()))
    }

    /// The body of an answer that is 200.
    ///
    /// # Errors
    ///
    /// Any other answer, and none.
    pub(crate) async fn answer(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        body: Option<&Value>,
    ) -> Result<Bytes, RequestError> {
        let (status, answer) = self.ask(method.clone(), path, token, body).await?;
        if status == StatusCode::OK {
            return Ok(answer);
        }
        Err(RequestError::new(&method, path, Fault::refused(status, &answer)))
    }

    /// The parsed body of an answer that is 200, and its size in bytes.
    pub(crate) async fn parsed<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        body: Option<&Value>,
    ) -> Result<(T, usize), RequestError> {
        let answer = self.answer(method.clone(), path, token, body).await?;
        let parsed = serde_json::from_slice(&answer);
        Ok((parsed.map_err(|error| RequestError::new(&method, path, Fault::Json(error)))?, answer.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_one_segment_of_a_path() {
        assert_eq!(encoded("!room:a.example/b"), "%21room%3Aa.example%2Fb");
        assert_eq!(encoded("a-b.c_d~1"), "a-b.c_d~1");
    }
}

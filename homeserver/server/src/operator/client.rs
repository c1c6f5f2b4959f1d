//! How a command asks: the running server over its socket, else a core that it opens for itself.

use std::sync::Arc;

use axum::{Router, body::Body};
use http::{Method, Request, header};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tower::ServiceExt as _;

use super::socket;
use crate::{config::Config, data, failure::Failure};

/// The largest answer that a command takes, bytes.
const MAX_ANSWER: usize = 64 * 1024 * 1024;

/// Why an operator's request was not fulfilled.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OperatorError {
    /// The server said no, in one sentence.
    #[error("{0}")]
    Refused(String),
    /// The running server did not answer as one.
    #[error("the running server gave no usable answer: {0}")]
    Broken(String),
}

/// Asks whoever has the data directory open.
pub(crate) enum Client {
    /// The running server.
    Running(http1::SendRequest<Body>),
    /// This process.
    Here(Router, Arc<matron_core::Core>),
}

impl Client {
    /// The running server if there is one, else the data directory itself, locked for this command.
    ///
    /// # Errors
    /// [`Failure`] when neither can be had.
    pub(crate) async fn open(config: &Config) -> Result<Self, Failure> {
        let reached =
            socket::connect(&config.server.data_dir).await.map_err(Failure::io("cannot reach the running server"))?;
        let Some(stream) = reached else {
            if !config.server.data_dir.exists() {
                return Err(Failure::CheckFailed(format!(
                    "there is no data in {}; is this the configuration that the server uses?",
                    config.server.data_dir.display()
                )));
            }
            let core = data::open(config)?;
            let router = super::router(Arc::clone(&core), Arc::new(config.clone()));
            return Ok(Self::Here(router, core));
        };
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| OperatorError::Broken(error.to_string()))?;
        tokio::spawn(connection);
        Ok(Self::Running(sender))
    }

    /// The answer to one request; `path` begins after `/_matron/operator/v1`.
    ///
    /// # Errors
    /// [`OperatorError::Refused`] with the server's sentence.
    pub(crate) async fn ask(mut self, method: Method, path: &str, body: Option<Value>) -> Result<Value, Failure> {
        let broken = |error: String| Failure::from(OperatorError::Broken(error));
        let body = body.map(|body| body.to_string());
        let mut request = Request::builder()
            .method(method)
            .uri(format!("/_matron/operator/v1{path}"))
            .header(header::HOST, "localhost");
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let request =
            request.body(body.map_or_else(Body::empty, Body::from)).map_err(|error| broken(error.to_string()))?;
        let response = match &mut self {
            Self::Running(sender) => sender
                .send_request(request)
                .await
                .map(|response: http::Response<Incoming>| response.map(Body::new))
                .map_err(|error| broken(error.to_string()))?,
            Self::Here(router, _) => match router.clone().oneshot(request).await {
                Ok(response) => response,
                Err(never) => match never {},
            },
        };
        let status = response.status();
        let bytes =
            axum::body::to_bytes(response.into_body(), MAX_ANSWER).await.map_err(|error| broken(error.to_string()))?;
        if let Self::Here(_, core) = &self {
            core.store.close();
        }
        let value: Value = serde_json::from_slice(&bytes).map_err(|error| broken(error.to_string()))?;
        if status.is_success() {
            return Ok(value);
        }
        let sentence = value.get("error").and_then(Value::as_str).unwrap_or("it refused without a reason");
        Err(OperatorError::Refused(sentence.to_owned()).into())
    }
}

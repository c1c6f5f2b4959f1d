//! One connection: its requests, one after the other, within their times.

use std::{net::SocketAddr, time::Duration};

use axum::body::Body;
use http::{Request, Response, StatusCode};
use hyper::{body::Incoming, server::conn::http1};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
};

use super::{
    Caller,
    body::{Left, TimedBody},
    forwarded,
    resources::Served,
};
use crate::serve::stopped;

/// The largest head of a request, bytes; filters of `/sync` may stand in its query.
const MAX_HEAD: usize = 128 * 1024;

/// The times of a connection, and whose word about addresses counts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) header: Duration,
    pub(super) body: Duration,
    pub(super) trust_forwarded_for: bool,
}

/// Serves one connection until the peer leaves, a time runs out, or `stop` turns true and the request is answered.
pub(super) async fn serve<S>(
    stream: S,
    peer: SocketAddr,
    served: Served,
    limits: Limits,
    mut stop: watch::Receiver<bool>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let stopping = stop.clone();
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        answer(request, peer, served.clone(), limits, stopping.clone())
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopped(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        // The peer's doing: a broken connection, a request that is no HTTP, a time run out.
        tracing::debug!(%error, "a connection ended early");
    }
}

async fn answer(
    request: Request<Incoming>,
    peer: SocketAddr,
    served: Served,
    limits: Limits,
    stop: watch::Receiver<bool>,
) -> Result<Response<Body>, std::convert::Infallible> {
    let left = Left::default();
    let client_waits = request.headers().contains_key(http::header::EXPECT);
    let request = request.map(|body| Body::new(TimedBody::new(body, limits.body, left.clone())));
    let mut response = routed(request, peer, served, limits, stop).await?;
    if !left.is_done_with(client_waits).await {
        response.headers_mut().insert(http::header::CONNECTION, http::HeaderValue::from_static("close"));
    }
    Ok(response)
}

async fn routed(
    mut request: Request<Body>,
    peer: SocketAddr,
    served: Served,
    limits: Limits,
    mut stop: watch::Receiver<bool>,
) -> Result<Response<Body>, std::convert::Infallible> {
    let long_poll = is_long_poll(request.uri().path());
    let address = forwarded::client_address(&request, peer.ip(), limits.trust_forwarded_for);
    request.extensions_mut().insert(Caller { peer: peer.ip() });
    request.extensions_mut().insert(matron_api::ClientAddress(address));
    if !long_poll {
        return served.answer(request).await;
    }
    tokio::select! {
        biased;
        answer = served.answer(request) => answer,
        // Whoever waits for news asks again at once, of the server that comes up next.
        () = stopped(&mut stop) => Ok(stopping()),
    }
}

/// The requests that may wait for minutes and hold nothing that a stop could lose.
fn is_long_poll(path: &str) -> bool {
    path.starts_with("/_matrix/client/") && (path.ends_with("/sync") || path.ends_with("/events"))
}

fn stopping() -> Response<Body> {
    let body = r#"{"errcode":"M_UNKNOWN","error":"This server is stopping; ask again."}"#;
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    let headers = response.headers_mut();
    headers.insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    headers.insert(http::header::ACCESS_CONTROL_ALLOW_ORIGIN, http::HeaderValue::from_static("*"));
    headers.insert(http::header::RETRY_AFTER, http::HeaderValue::from_static("1"));
    response
}

//! One span and one measurement per request; never the query, a token or a filled-in path.

use std::time::Instant;

use axum::{
    extract::{MatchedPath, Request},
    response::Response,
};
use http::Method;
use tracing::Instrument;

use crate::metrics;

/// What is told of a request: its method, and the route that it matched.
pub(super) struct Observed {
    matched: Option<MatchedPath>,
    method: Method,
}

impl Observed {
    pub(super) fn of(request: &Request) -> Self {
        let matched = request.extensions().get::<MatchedPath>().cloned();
        Self { matched, method: request.method().clone() }
    }

    /// Answers inside the request's span, and counts it under its route.
    pub(super) async fn run(self, answered: impl Future<Output = Response>) -> Response {
        let Self { matched, method } = self;
        let route = matched.as_ref().map_or("unmatched", MatchedPath::as_str);
        let span = tracing::info_span!("request", method = %method, path = route);
        let begun = Instant::now();
        async {
            let response = answered.await;
            let elapsed = begun.elapsed();
            let status = response.status().as_u16();
            metrics::record(route, &method, status, elapsed);
            tracing::debug!(status, duration_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX), "answered");
            response
        }
        .instrument(span)
        .await
    }
}

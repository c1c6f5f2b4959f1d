//! One span and one measurement per request; never the query, a token or a filled-in path.

use std::time::Instant;

use axum::{
    extract::{MatchedPath, Request},
    middleware::Next,
    response::Response,
};
use tracing::Instrument;

use crate::metrics;

/// Runs the request inside its span and counts it under its route.
pub(super) async fn observe(request: Request, next: Next) -> Response {
    let matched = request.extensions().get::<MatchedPath>().cloned();
    let route = matched.as_ref().map_or("unmatched", MatchedPath::as_str);
    let method = request.method().clone();
    let span = tracing::info_span!("request", method = %method, path = route);
    let begun = Instant::now();
    async {
        let response = next.run(request).await;
        let elapsed = begun.elapsed();
        let status = response.status().as_u16();
        metrics::record(route, &method, status, elapsed);
        tracing::debug!(status, duration_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX), "answered");
        response
    }
    .instrument(span)
    .await
}

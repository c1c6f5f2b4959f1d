//! Browsers of any origin may use the client paths.

use axum::{
    extract::Request,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, Method, StatusCode, header};

/// Adds the CORS headers to every answer on a client path, errors included, and answers preflights.
///
/// The account's pages are for nobody's scripts.
///
/// SPEC: v1.19 Client-Server API, "Web Browser Clients".
pub(super) async fn allow<F: Future<Output = Response>>(request: Request, next: impl FnOnce(Request) -> F) -> Response {
    let path = request.uri().path();
    if ["/_matrix/federation", "/_matrix/key", "/_matrix/policy", "/account/"]
        .iter()
        .any(|prefix| path.starts_with(prefix))
    {
        return next(request).await;
    }
    let mut response =
        if request.method() == Method::OPTIONS { StatusCode::OK.into_response() } else { next(request).await };
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_METHODS,
        HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),
    );
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_HEADERS,
        HeaderValue::from_static("X-Requested-With, Content-Type, Authorization, Date, If-Match, If-None-Match"),
    );
    // MSC: 4108: a page must see which version of a channel's data it got.
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("ETag"));
    response
}

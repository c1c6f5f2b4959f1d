//! What surrounds every handler: spans and counters, caught panics, CORS, unknown paths.

mod cors;
pub mod rate_limit;
mod span;

use std::{net::IpAddr, panic::AssertUnwindSafe};

use axum::{
    Router,
    extract::Request,
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
};
use futures_util::FutureExt;
use http::StatusCode;
use matron_core::Error;

use crate::{ApiError, AppState};

/// The address of the client, put into the request's extensions by the listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientAddress(pub IpAddr);

/// The finished router.
pub(crate) fn wrap(routes: Router<AppState>, state: AppState) -> Router {
    routes
        .fallback(|| async { ApiError(Error::Unrecognized) })
        .method_not_allowed_fallback(wrong_method)
        .with_state(state)
        .layer(from_fn(surround))
}

/// One layer for all of it: each costs every request a boxed copy of what it surrounds.
async fn surround(request: Request, next: Next) -> Response {
    span::Observed::of(&request).run(cors::allow(request, |request| catch_panic(next.run(request)))).await
}

/// SPEC: v1.19 Client-Server API, "Common error codes": 405 with `M_UNRECOGNIZED`.
async fn wrong_method() -> Response {
    let mut response = ApiError(Error::Unrecognized).into_response();
    *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
    response
}

/// A panic is a defect, but it ends one request only, with a Matrix error.
async fn catch_panic(handled: impl Future<Output = Response>) -> Response {
    match AssertUnwindSafe(handled).catch_unwind().await {
        Ok(response) => response,
        Err(_) => ApiError(Error::internal("a handler panicked")).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use axum::{Router, body::Body, middleware::from_fn, response::Response, routing::get};
    use http::{Request, StatusCode};
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    use super::surround;

    async fn broken() -> Response {
        panic!("a defect")
    }

    #[tokio::test]
    async fn a_panic_ends_one_request_with_a_matrix_error_that_says_nothing() {
        let router = Router::new().route("/", get(broken)).layer(from_fn(surround));
        let response = router.oneshot(Request::get("/").body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["errcode"], "M_UNKNOWN");
        assert!(!body.to_string().contains("defect"));
    }
}

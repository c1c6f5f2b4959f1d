//! Which paths a listener serves.

use std::{convert::Infallible, net::IpAddr};

use axum::{
    Router,
    extract::Request,
    response::{IntoResponse as _, Response},
};
use http::{StatusCode, header::CONTENT_TYPE};
use tower::ServiceExt as _;

use crate::config::Resource;

/// The machine at the other end of the connection, proxy or not.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller {
    pub(crate) peer: IpAddr,
}

/// The router, narrowed to a listener's resources; none means all, with metrics for callers on this machine only.
#[derive(Clone, Debug)]
pub(super) struct Served {
    router: Router,
    resources: std::sync::Arc<[Resource]>,
}

impl Served {
    pub(super) fn new(router: Router, resources: &[Resource]) -> Self {
        Self { router, resources: resources.into() }
    }

    /// The router's answer, if the listener serves the path.
    pub(super) async fn answer(self, request: Request) -> Result<Response, Infallible> {
        if allowed(&self.resources, request.uri().path(), caller(&request)) {
            self.router.oneshot(request).await
        } else {
            Ok(unknown())
        }
    }
}

/// Who asks, if they ask themselves: a proxy on this machine that says for whom it asks is not the one who wants to know.
fn caller(request: &Request) -> Option<IpAddr> {
    if ["x-forwarded-for", "forwarded", "via"].iter().any(|name| request.headers().contains_key(*name)) {
        return None;
    }
    request.extensions().get::<Caller>().map(|caller| caller.peer)
}

fn allowed(resources: &[Resource], path: &str, peer: Option<IpAddr>) -> bool {
    let of = resource_of(path);
    if resources.is_empty() {
        return of != Some(Resource::Metrics) || peer.is_some_and(|peer| peer.to_canonical().is_loopback());
    }
    // What belongs to no resource is answered like any unknown path, by the router.
    let Some(of) = of else { return true };
    resources.contains(&of) || (of == Resource::Media && resources.contains(&Resource::Client))
}

fn resource_of(path: &str) -> Option<Resource> {
    let media = ["/_matrix/media/", "/_matrix/client/v1/media/"];
    let federation = ["/_matrix/federation/", "/_matrix/policy/", "/.well-known/matrix/server"];
    let client = [
        "/_matrix/client/",
        "/_matrix/static/",
        "/_matrix/app/",
        "/_synapse/",
        "/_matron/",
        "/account/",
        "/oauth2/",
        "/.well-known/",
    ];
    let starts = |prefixes: &[&str]| prefixes.iter().any(|prefix| path.starts_with(prefix));
    match path {
        "/health" => Some(Resource::Health),
        "/metrics" => Some(Resource::Metrics),
        _ if starts(&media) => Some(Resource::Media),
        _ if starts(&federation) => Some(Resource::Federation),
        _ if path.starts_with("/_matrix/key/") => Some(Resource::Key),
        _ if starts(&client) => Some(Resource::Client),
        _ => None,
    }
}

fn unknown() -> Response {
    let body = r#"{"errcode":"M_UNRECOGNIZED","error":"This path is not served at this address."}"#;
    (StatusCode::NOT_FOUND, [(CONTENT_TYPE, "application/json")], body).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_serves_its_resources_and_nothing_else() {
        let federation = [Resource::Federation, Resource::Key];
        assert!(allowed(&federation, "/_matrix/key/v2/server", None));
        assert!(!allowed(&federation, "/_matrix/client/versions", None));
        assert!(!allowed(&federation, "/.well-known/matrix/client", None));
        assert!(allowed(&[Resource::Client], "/_matrix/media/v3/upload", None));
        assert!(!allowed(&[Resource::Client], "/metrics", None));
    }

    #[test]
    fn metrics_are_for_this_machine_unless_a_listener_names_them() {
        assert!(allowed(&[], "/metrics", Some("127.0.0.1".parse().unwrap())));
        assert!(!allowed(&[], "/metrics", Some("192.0.2.1".parse().unwrap())));
        assert!(allowed(&[Resource::Metrics], "/metrics", Some("192.0.2.1".parse().unwrap())));
        let mut request = Request::new(axum::body::Body::empty());
        request.extensions_mut().insert(Caller { peer: "127.0.0.1".parse().unwrap() });
        assert!(caller(&request).is_some());
        request.headers_mut().insert("x-forwarded-for", http::HeaderValue::from_static("192.0.2.1"));
        assert!(caller(&request).is_none(), "a proxy of this machine hands on the metrics");
    }
}

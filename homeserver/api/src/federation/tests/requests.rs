//! Signed requests and key documents through the whole router.

use std::{collections::BTreeMap, sync::Arc};

use axum::{Router, body::Body, routing::put};
use futures_util::future::BoxFuture;
use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use matron_core::settings::RateLimit;
use matron_core::{
    Core, Parts, Settings,
    federation::keys::x_matrix::{SignedRequest, sign_request},
    ports::{Federation, FederationRequest, OutboundRequest, PeerError, PeerResponse, SystemClock},
};
use matron_room::SigningKey;
use matron_storage::{EngineKind, KeyRing, MasterKey};
use ruma::{ServerName, serde::Raw};
use serde::Deserialize;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::{
    AppState, ClientAddress, RateLimiter,
    extract::{Peer, PeerJson},
    middleware,
};

const FAR_MS: u64 = 1 << 50;

fn key(byte: u8) -> SigningKey {
    SigningKey::from_seed("k", &[byte; 32]).unwrap()
}

fn name(name: &str) -> &ServerName {
    name.try_into().unwrap()
}

/// `peer.example` publishes its key; nobody else answers.
#[derive(Debug)]
struct OnePeer;

impl Federation for OnePeer {
    fn request(&self, request: FederationRequest) -> BoxFuture<'_, Result<PeerResponse, PeerError>> {
        Box::pin(async move {
            if request.destination != "peer.example" {
                return Err(PeerError::Timeout);
            }
            let document = json!({
                "server_name": "peer.example", "valid_until_ts": FAR_MS, "old_verify_keys": {},
                "verify_keys": {"ed25519:k": {"key": key(1).verify_key().to_base64()}},
            });
            let mut document = matron_room::canonical_object(&document).unwrap();
            key(1).sign_json(&mut document, "peer.example").unwrap();
            Ok(PeerResponse {
                status: 200,
                content_type: None,
                content_disposition: None,
                location: None,
                body: serde_json::to_vec(&document).unwrap().into(),
            })
        })
    }

    fn outbound(&self, _request: OutboundRequest) -> BoxFuture<'_, Result<PeerResponse, PeerError>> {
        Box::pin(async { Err(PeerError::Timeout) })
    }

    fn heard_from(&self, _server: &ServerName) {}
}

#[derive(Deserialize)]
struct Transaction {
    pdus: Vec<Raw<Value>>,
}

async fn receive(peer: PeerJson<Transaction, 1024>) -> String {
    format!("{} {}", peer.server, peer.body.pdus.iter().map(|pdu| pdu.json().get()).collect::<String>())
}

async fn whoami(peer: Peer) -> String {
    peer.server.to_string()
}

fn router() -> (tempfile::TempDir, Router) {
    router_with(None)
}

fn router_with(limit: Option<RateLimit>) -> (tempfile::TempDir, Router) {
    let directory = tempfile::tempdir().unwrap();
    let core = Core::new(Parts {
        settings: Settings { rate_limit: None, ..Settings::default() },
        server_name: name("us.example").to_owned(),
        store: matron_storage::open(EngineKind::Memory, directory.path()).unwrap(),
        keyring: Arc::new(KeyRing::open(&directory.path().join("ring"), MasterKey::from_bytes([1; 32])).unwrap()),
        signing_key: Arc::new(key(2)),
        clock: Arc::new(SystemClock),
        federation: Arc::new(OnePeer),
        media_dir: directory.path().join("media"),
        appservices: Vec::new(),
    })
    .unwrap();
    let state = AppState { core, limiter: Arc::new(RateLimiter::new(limit)) };
    let routes = super::super::routes().route("/test/{part}", put(receive).get(whoami));
    (directory, middleware::wrap(routes, state))
}

async fn send(router: &Router, request: Request<Body>) -> (StatusCode, String) {
    let response = router.clone().oneshot(request).await.unwrap();
    let status = response.status();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(bytes.to_vec()).unwrap())
}

async fn get(router: &Router, uri: &str) -> (StatusCode, Value) {
    let (status, text) = send(router, Request::get(uri).body(Body::empty()).unwrap()).await;
    (status, serde_json::from_str(&text).unwrap())
}

fn signed(method: &str, uri: &str, signed_body: Option<&str>, body: &str) -> Request<Body> {
    let content: Option<Value> = signed_body.map(|body| serde_json::from_str(body).unwrap());
    let authorization = sign_request(
        &SignedRequest {
            method,
            uri,
            origin: name("peer.example"),
            destination: Some(name("us.example")),
            content: content.as_ref(),
        },
        &key(1),
    );
    let builder = Request::builder().method(method).uri(uri).header("Authorization", authorization);
    builder.body(Body::from(body.to_owned())).unwrap()
}

fn errcode(text: &str) -> String {
    serde_json::from_str::<Value>(text).unwrap()["errcode"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_signed_body_arrives_byte_for_byte_with_its_sender() {
    let (_directory, router) = router();
    let body = r#" {"pdus": [{"z" : 1.50, "a":"\u00e9"}], "other": 1} "#;
    let (status, text) = send(&router, signed("PUT", "/test/a%2Fb?x=%20", Some(body), body)).await;
    assert_eq!((status, text.as_str()), (StatusCode::OK, r#"peer.example {"z" : 1.50, "a":"\u00e9"}"#));
    let (status, text) = send(&router, signed("GET", "/test/a", None, "")).await;
    assert_eq!((status, text.as_str()), (StatusCode::OK, "peer.example"));
}

#[tokio::test]
async fn what_was_not_signed_is_refused() {
    let (_directory, router) = router();
    let body = r#"{"pdus": []}"#;
    let mut unsigned = signed("PUT", "/test/a", Some(body), body);
    unsigned.headers_mut().remove("Authorization");
    let mut other_path = signed("PUT", "/test/a", Some(body), body);
    *other_path.uri_mut() = "/test/b".parse().unwrap();
    let mut bearer = signed("PUT", "/test/a", Some(body), body);
    bearer.headers_mut().insert("Authorization", "Bearer abc".parse().unwrap());
    for request in
        [unsigned, other_path, bearer, signed("PUT", "/test/a", Some("{}"), body), signed("GET", "/test/a", None, "{}")]
    {
        let (status, text) = send(&router, request).await;
        assert_eq!((status, errcode(&text).as_str()), (StatusCode::UNAUTHORIZED, "M_UNAUTHORIZED"));
    }
}

#[tokio::test]
async fn what_is_nested_too_deep_to_be_read_does_not_cost_its_neighbours() {
    let (_directory, router) = router();
    let deep = (0..300).fold(json!(1), |inner, _| json!([inner]));
    let content = json!({"pdus": [deep, {"a": 1}]});
    let request = SignedRequest {
        method: "PUT",
        uri: "/test/a",
        origin: name("peer.example"),
        destination: Some(name("us.example")),
        content: Some(&content),
    };
    let authorization = sign_request(&request, &key(1));
    let put =
        |body: String| Request::put("/test/a").header("Authorization", &authorization).body(Body::from(body)).unwrap();
    let (status, text) = send(&router, put(content.to_string())).await;
    assert_eq!(status, StatusCode::OK, "{text}");
    assert!(text.ends_with(r#"{"a":1}"#), "{text}");
    // Only the very text that was signed.
    let (status, _) = send(&router, put(content.to_string().replace("{\"a\":1}", "{\"a\":2}"))).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    let (status, text) = send(&router, put(format!("{}x", content.to_string().trim_end_matches('}')))).await;
    assert_eq!((status, errcode(&text).as_str()), (StatusCode::BAD_REQUEST, "M_NOT_JSON"));
}

#[tokio::test]
async fn an_address_has_so_many_unsigned_requests_and_known_servers_do_not_pay_for_others() {
    let (_directory, router) = router_with(Some(RateLimit { per_second: 0.001, burst: 3 }));
    let from = |address: &str, mut request: Request<Body>| {
        request.extensions_mut().insert(ClientAddress(address.parse().unwrap()));
        let router = router.clone();
        async move {
            let (status, text) = send(&router, request).await;
            (status.as_u16(), if status == StatusCode::OK { text } else { errcode(&text) })
        }
    };
    let good = || signed("GET", "/test/a", None, "");
    let stranger = || {
        let text = format!("X-Matrix origin=\"nobody.example\",key=\"ed25519:k\",sig=\"{}\"", "A".repeat(86));
        Request::get("/test/a").header("Authorization", text).body(Body::empty()).unwrap()
    };
    let told = |status: u16, what: &str| (status, what.to_owned());
    // Whoever signs is never counted.
    for _ in 0..10 {
        assert_eq!(from("192.0.2.1", good()).await, told(200, "peer.example"));
    }
    let mut forged = good();
    *forged.uri_mut() = "/test/b".parse().unwrap();
    let unsigned = Request::get("/test/a").body(Body::empty()).unwrap();
    for request in [forged, unsigned, stranger()] {
        assert_eq!(from("192.0.2.1", request).await, told(401, "M_UNAUTHORIZED"));
    }
    let mut forged = good();
    *forged.uri_mut() = "/test/b".parse().unwrap();
    for request in [stranger(), forged] {
        assert_eq!(from("192.0.2.1", request).await, told(429, "M_LIMIT_EXCEEDED"));
    }
    // As behind a proxy that hides who asks.
    assert_eq!(from("192.0.2.1", good()).await, told(200, "peer.example"));
    assert_eq!(from("192.0.2.2", stranger()).await, told(401, "M_UNAUTHORIZED"));
}

#[tokio::test]
async fn malformed_and_oversized_bodies_are_matrix_errors() {
    let (_directory, router) = router();
    for (body, status, code) in [
        ("{", StatusCode::BAD_REQUEST, "M_NOT_JSON"),
        ("{}", StatusCode::BAD_REQUEST, "M_MISSING_PARAM"),
        (r#"{"pdus": 1}"#, StatusCode::BAD_REQUEST, "M_BAD_JSON"),
        (&" ".repeat(1025), StatusCode::PAYLOAD_TOO_LARGE, "M_TOO_LARGE"),
    ] {
        let signed_body = serde_json::from_str::<Value>(body).is_ok().then_some(body);
        let (answered, text) = send(&router, signed("PUT", "/test/a", signed_body, body)).await;
        assert_eq!((answered, errcode(&text).as_str()), (status, code), "{body}");
    }
}

#[tokio::test]
async fn our_keys_are_published_at_every_path_that_is_asked_for() {
    let (_directory, router) = router();
    for path in ["/_matrix/key/v2/server", "/_matrix/key/v2/server/", "/_matrix/key/v2/server/ed25519:k"] {
        let (status, document) = get(&router, path).await;
        assert_eq!(status, StatusCode::OK);
        let keys = BTreeMap::from([("ed25519:k".to_owned(), key(2).verify_key().to_base64())]);
        let object = matron_room::canonical_object(&document).unwrap();
        matron_room::verify_json_signature(&object, "us.example", &keys).unwrap();
        assert!(document["old_verify_keys"].is_object());
    }
}

#[tokio::test]
async fn a_notary_answers_get_and_post_alike() {
    let (_directory, router) = router();
    let (_, one) = get(&router, "/_matrix/key/v2/query/peer.example").await;
    let (_, two) = get(&router, "/_matrix/key/v2/query/peer.example/ed25519:k?minimum_valid_until_ts=1").await;
    let query =
        json!({"server_keys": {"peer.example": {"ed25519:k": {"minimum_valid_until_ts": 1}}, "gone.example": {}}});
    let request = Request::post("/_matrix/key/v2/query").body(Body::from(query.to_string())).unwrap();
    let (status, three) = send(&router, request).await;
    assert_eq!(status, StatusCode::OK);
    let three: Value = serde_json::from_str(&three).unwrap();
    assert_eq!(one["server_keys"].as_array().unwrap().len(), 1);
    assert!(one["server_keys"][0]["signatures"]["us.example"]["ed25519:k"].is_string());
    assert!(one["server_keys"][0]["signatures"]["peer.example"]["ed25519:k"].is_string());
    assert_eq!(one, two);
    assert_eq!(one, three);

    for (path, body) in
        [("/_matrix/key/v2/query/not%20a%20server", None), ("/_matrix/key/v2/query", Some(r#"{"server_keys": []}"#))]
    {
        let request = match body {
            Some(body) => Request::post(path).body(Body::from(body)).unwrap(),
            None => Request::get(path).body(Body::empty()).unwrap(),
        };
        assert_eq!(send(&router, request).await.0, StatusCode::BAD_REQUEST, "{path}");
    }
}

#[tokio::test]
async fn the_version_needs_no_signature() {
    let (_directory, router) = router();
    let (status, body) = get(&router, "/_matrix/federation/v1/version").await;
    assert_eq!((status, &body["server"]["name"]), (StatusCode::OK, &json!("Matron")));
}

//! Media over HTTP: paths, headers, refusals.

use std::sync::Arc;

use axum::{Router, body::Body, response::Response};
use http::{Method, Request, StatusCode, header};
use http_body_util::BodyExt as _;
use matron_core::{
    Core, Parts, Settings,
    ports::{NoFederation, SystemClock},
    settings::{Registration, RegistrationMode},
};
use matron_storage::{EngineKind, KeyRing, MasterKey};
use serde_json::{Value, json};
use tower::ServiceExt as _;

struct Server {
    router: Router,
    token: String,
    _directory: tempfile::TempDir,
}

async fn body_of(response: Response) -> Vec<u8> {
    response.into_body().collect().await.unwrap().to_bytes().to_vec()
}

impl Server {
    async fn start(settings: Settings) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let keyring = KeyRing::open(&directory.path().join("keyring"), MasterKey::from_bytes([1; 32])).unwrap();
        let core = Core::new(Parts {
            settings: Settings {
                insecure_fast_password_hash: true,
                registration: Registration { mode: RegistrationMode::Open, ..Registration::default() },
                ..settings
            },
            server_name: "us.example".try_into().unwrap(),
            store: matron_storage::open(EngineKind::Memory, directory.path()).unwrap(),
            keyring: Arc::new(keyring),
            signing_key: Arc::new(matron_room::SigningKey::from_seed("us", &[2; 32]).unwrap()),
            clock: Arc::new(SystemClock),
            federation: Arc::new(NoFederation),
            media_dir: directory.path().join("media"),
            appservices: Vec::new(),
        })
        .unwrap();
        let mut server = Self { router: crate::router(core), token: String::new(), _directory: directory };
        let registration =
            json!({ "username": "alice", "password": "a long password", "auth": { "type": "m.login.dummy" } });
        let answer = server.send(Method::POST, "/_matrix/client/v3/register", &[], registration.to_string()).await;
        assert_eq!(answer.status(), StatusCode::OK);
        let answer: Value = serde_json::from_slice(&body_of(answer).await).unwrap();
        answer["access_token"].as_str().unwrap().clone_into(&mut server.token);
        server
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(header::HeaderName, &str)],
        body: impl Into<Body>,
    ) -> Response {
        let mut request = Request::builder().method(method).uri(path);
        if !self.token.is_empty() {
            request = request.header(header::AUTHORIZATION, format!("Bearer {}", self.token));
        }
        for (name, value) in headers {
            request = request.header(name, *value);
        }
        self.router.clone().oneshot(request.body(body.into()).unwrap()).await.unwrap()
    }

    async fn get(&self, path: &str) -> Response {
        self.send(Method::GET, path, &[], Body::empty()).await
    }

    async fn upload(&self, kind: &str, name: &str, content: &str) -> String {
        let path = format!("/_matrix/media/v3/upload?filename={name}");
        let answer = self.send(Method::POST, &path, &[(header::CONTENT_TYPE, kind)], content.to_owned()).await;
        assert_eq!(answer.status(), StatusCode::OK);
        let answer: Value = serde_json::from_slice(&body_of(answer).await).unwrap();
        answer["content_uri"].as_str().unwrap().strip_prefix("mxc://").unwrap().to_owned()
    }
}

fn header_of<'a>(response: &'a Response, name: &str) -> &'a str {
    response.headers().get(name).unwrap().to_str().unwrap()
}

#[tokio::test]
async fn a_file_comes_back_with_the_headers_that_keep_browsers_safe() {
    let server = Server::start(Settings::default()).await;
    let mxc = server.upload("image/png", "a.png", "hello").await;
    let answer = server.get(&format!("/_matrix/client/v1/media/download/{mxc}")).await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(header_of(&answer, "content-type"), "image/png");
    assert_eq!(header_of(&answer, "content-disposition"), "inline; filename=a.png");
    assert_eq!(header_of(&answer, "content-length"), "5");
    assert_eq!(header_of(&answer, "x-content-type-options"), "nosniff");
    assert_eq!(header_of(&answer, "cross-origin-resource-policy"), "cross-origin");
    assert!(header_of(&answer, "content-security-policy").starts_with("sandbox; default-src 'none'"));
    assert_eq!(body_of(answer).await, b"hello");
}

#[tokio::test]
async fn a_page_is_never_shown_inside_another() {
    let server = Server::start(Settings::default()).await;
    let mxc = server.upload("text/html", "a.html", "<script>").await;
    let answer = server.get(&format!("/_matrix/client/v1/media/download/{mxc}/other%20name.html")).await;
    assert_eq!(header_of(&answer, "content-disposition"), "attachment; filename=\"other name.html\"");
}

#[tokio::test]
async fn a_part_of_a_file_is_given_alone() {
    let server = Server::start(Settings::default()).await;
    let mxc = server.upload("text/plain", "a.txt", "0123456789").await;
    let path = format!("/_matrix/client/v1/media/download/{mxc}");
    let answer = server.send(Method::GET, &path, &[(header::RANGE, "bytes=2-4")], Body::empty()).await;
    assert_eq!(answer.status(), StatusCode::PARTIAL_CONTENT);
    assert_eq!(header_of(&answer, "content-range"), "bytes 2-4/10");
    assert_eq!(body_of(answer).await, b"234");
    let answer = server.send(Method::GET, &path, &[(header::RANGE, "bytes=10-")], Body::empty()).await;
    assert_eq!(answer.status(), StatusCode::RANGE_NOT_SATISFIABLE);
    assert_eq!(header_of(&answer, "content-range"), "bytes */10");
    assert_eq!(header_of(&answer, "content-type"), "application/json");
    let refusal: Value = serde_json::from_slice(&body_of(answer).await).unwrap();
    assert_eq!(refusal["errcode"], "M_INVALID_PARAM");
}

#[tokio::test]
async fn old_paths_are_frozen_unless_the_operator_opens_them() {
    for (open, status) in [(false, StatusCode::NOT_FOUND), (true, StatusCode::OK)] {
        let mut server = Server::start(Settings { unauthenticated_media: open, ..Settings::default() }).await;
        let mxc = server.upload("text/plain", "a.txt", "hello").await;
        server.token.clear();
        for version in ["r0", "v1", "v3"] {
            let answer = server.get(&format!("/_matrix/media/{version}/download/{mxc}?allow_redirect=true")).await;
            assert_eq!(answer.status(), status);
        }
        let answer = server.get(&format!("/_matrix/client/v1/media/download/{mxc}")).await;
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    }
}

#[tokio::test]
async fn a_file_that_is_too_large_is_refused_before_it_is_read() {
    let server = Server::start(Settings { max_upload_bytes: 100, ..Settings::default() }).await;
    let endless = Body::from_stream(futures_util::stream::pending::<Result<bytes::Bytes, std::io::Error>>());
    let answer =
        server.send(Method::POST, "/_matrix/media/v3/upload", &[(header::CONTENT_LENGTH, "101")], endless).await;
    assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE);
    let answer = server.send(Method::POST, "/_matrix/media/v3/upload", &[], "x".repeat(101)).await;
    assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE);
    let config: Value =
        serde_json::from_slice(&body_of(server.get("/_matrix/client/v1/media/config").await).await).unwrap();
    assert_eq!(config["m.upload.size"], 100);
}

#[tokio::test]
async fn a_name_is_created_first_and_its_file_comes_later() {
    let server = Server::start(Settings::default()).await;
    let answer = server.send(Method::POST, "/_matrix/media/v1/create", &[], "").await;
    let answer: Value = serde_json::from_slice(&body_of(answer).await).unwrap();
    let mxc = answer["content_uri"].as_str().unwrap().strip_prefix("mxc://").unwrap().to_owned();
    let download = format!("/_matrix/client/v1/media/download/{mxc}?timeout_ms=0");
    let early = server.get(&download).await;
    assert_eq!(early.status(), StatusCode::GATEWAY_TIMEOUT);
    let early: Value = serde_json::from_slice(&body_of(early).await).unwrap();
    assert_eq!(early["errcode"], "M_NOT_YET_UPLOADED");
    let path = format!("/_matrix/media/v3/upload/{mxc}");
    assert_eq!(server.send(Method::PUT, &path, &[], "hello").await.status(), StatusCode::OK);
    assert_eq!(server.send(Method::PUT, &path, &[], "again").await.status(), StatusCode::CONFLICT);
    assert_eq!(body_of(server.get(&download).await).await, b"hello");
}

#[tokio::test]
async fn malformed_names_and_sizes_are_refused_as_the_specification_says() {
    let server = Server::start(Settings::default()).await;
    let mxc = server.upload("text/plain", "a.txt", "hello").await;
    for (path, status) in [
        ("download/us.example/..%2F..%2Fetc".to_owned(), StatusCode::NOT_FOUND),
        ("download/not%20a%20server/id".to_owned(), StatusCode::BAD_REQUEST),
        ("download/us.example/unknown".to_owned(), StatusCode::NOT_FOUND),
        (format!("thumbnail/{mxc}?width=10&height=10"), StatusCode::BAD_REQUEST),
        (format!("thumbnail/{mxc}?width=0&height=10"), StatusCode::BAD_REQUEST),
        (format!("thumbnail/{mxc}?width=-1&height=10"), StatusCode::BAD_REQUEST),
        (format!("thumbnail/{mxc}?width=10"), StatusCode::BAD_REQUEST),
        (format!("thumbnail/{mxc}?width=10&height=10&method=stretch"), StatusCode::BAD_REQUEST),
    ] {
        let answer = server.get(&format!("/_matrix/client/v1/media/{path}")).await;
        assert_eq!(answer.status(), status, "{path}");
        let error: Value = serde_json::from_slice(&body_of(answer).await).unwrap();
        assert!(error["errcode"].is_string() && error["error"].is_string());
    }
}

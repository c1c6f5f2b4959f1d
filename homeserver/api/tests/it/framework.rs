//! Bodies, errors, CORS, limits.

use axum::body::Body;
use http::{Method, Request, StatusCode};
use matron_core::{Settings, settings::RateLimit};
use serde_json::json;

use crate::server::{Server, open_settings};

#[tokio::test]
async fn unknown_paths_and_wrong_methods_are_matrix_errors() {
    let server = Server::new();
    server.get("", "/v3/nonsense").await.refused(404, "M_UNRECOGNIZED");
    server.send("", Method::DELETE, "/v3/login", None).await.refused(405, "M_UNRECOGNIZED");
    server.get("", "/_matrix/nonsense").await.refused(404, "M_UNRECOGNIZED");
}

#[tokio::test]
async fn every_client_answer_allows_other_origins() {
    let server = Server::new();
    for (method, path) in [
        (Method::OPTIONS, "/v3/login"),
        (Method::GET, "/v3/login"),
        (Method::GET, "/v3/nonsense"),
        (Method::GET, "/v3/sync"),
    ] {
        let answer = server.send("", method, path, None).await;
        assert_eq!(answer.headers["access-control-allow-origin"], "*", "{path}");
        assert!(answer.headers["access-control-allow-headers"].to_str().unwrap().contains("Authorization"));
        assert!(answer.headers["access-control-allow-methods"].to_str().unwrap().contains("DELETE"));
    }
    assert_eq!(server.send("", Method::OPTIONS, "/v3/login", None).await.status, StatusCode::OK);
}

#[tokio::test]
async fn bodies_that_are_not_json_are_told_apart_from_wrong_ones() {
    let server = Server::new();
    let login = |body: Vec<u8>| {
        let request = Request::post("/_matrix/client/v3/login").body(Body::from(body)).unwrap();
        server.raw(request)
    };
    login(b"".to_vec()).await.refused(400, "M_NOT_JSON");
    login(b"{\"type\":".to_vec()).await.refused(400, "M_NOT_JSON");
    login(b"{\"type\":\"\xff\"}".to_vec()).await.refused(400, "M_NOT_JSON");
    login(b"{\"x\":\"\xff\",\"type\":\"a\"}".to_vec()).await.refused(400, "M_NOT_JSON");
    login(b"{\"type\":1}".to_vec()).await.refused(400, "M_BAD_JSON");
    login(b"{}".to_vec()).await.refused(400, "M_MISSING_PARAM");
    login(b"[]".to_vec()).await.refused(400, "M_BAD_JSON");
    login("[".repeat(100_000).into_bytes()).await.refused(400, "M_NOT_JSON");
}

#[tokio::test]
async fn bodies_over_the_limit_are_refused_before_they_are_read() {
    let server = Server::new();
    let request = Request::post("/_matrix/client/v3/login")
        .header("content-length", "99999999999")
        .body(Body::from("{}"))
        .unwrap();
    server.raw(request).await.refused(413, "M_TOO_LARGE");
    let long = format!("{{\"type\":\"{}\"}}", "a".repeat(2 << 20));
    let request = Request::post("/_matrix/client/v3/login").body(Body::from(long)).unwrap();
    server.raw(request).await.refused(413, "M_TOO_LARGE");
}

#[tokio::test]
async fn path_parts_and_queries_are_checked() {
    let server = Server::new();
    let alice = server.user("alice").await;
    server.get(&alice.token, "/v3/profile/nobody").await.refused(400, "M_INVALID_PARAM");
    server.get(&alice.token, "/v3/profile/%FF").await.refused(400, "M_INVALID_PARAM");
    server.get("", "/v3/register/available").await.refused(400, "M_MISSING_PARAM");
    let path = format!("/v3/profile/{}", alice.id.replace('@', "%40").replace(':', "%3A"));
    server.get(&alice.token, &path).await.ok();
}

#[tokio::test]
async fn too_many_requests_are_told_when_to_come_again() {
    let rate_limit = Some(RateLimit { per_second: 1.0, burst: 3 });
    let server = Server::with(Settings { rate_limit, ..open_settings() }, Vec::new());
    for _ in 0..3 {
        server.get("", "/v3/register/available?username=alice").await.ok();
    }
    let answer = server.get("", "/v3/register/available?username=alice").await;
    assert_eq!(answer.headers["retry-after"], "1");
    assert_eq!(answer.refused(429, "M_LIMIT_EXCEEDED")["retry_after_ms"], json!(1000));
    server.advance_ms(1000);
    server.get("", "/v3/register/available?username=alice").await.ok();
}

#[tokio::test]
async fn requests_are_counted_by_route_and_never_by_filled_in_path() {
    let server = Server::new();
    let alice = server.user("alice").await;
    server.get(&alice.token, &format!("/v3/profile/{}/displayname", alice.id)).await;
    let metrics = matron_api::metrics::render();
    assert!(metrics.contains("route=\"/_matrix/client/v3/profile/{user_id}/{field}\""), "{metrics}");
    assert!(!metrics.contains("@alice"));
}

#[tokio::test]
async fn the_server_says_what_it_is() {
    let server = Server::new();
    let versions = server.get("", "/_matrix/client/versions").await.ok();
    assert!(versions["versions"].as_array().unwrap().contains(&json!("v1.11")));
    assert_eq!(
        server.get("", "/.well-known/matrix/client").await.ok(),
        json!({ "m.homeserver": { "base_url": "https://us.example" } })
    );
    server.get("", "/.well-known/matrix/server").await.refused(404, "M_NOT_FOUND");
    let alice = server.user("alice").await;
    let capabilities = server.get(&alice.token, "/v3/capabilities").await.ok();
    assert_eq!(capabilities["capabilities"]["m.room_versions"]["default"], "10");
}

//! Channels over which one device signs another in by QR code (MSC4108, MSC4388).

use axum::body::Body;
use http::{Method, Request, header};
use http_body_util::BodyExt as _;
use matron_core::{
    Settings,
    settings::{OAuth, QrLogin},
};
use serde_json::json;
use tower::ServiceExt as _;

use crate::server::{Server, open_settings};

const TEXT: &str = "/_matrix/client/unstable/org.matrix.msc4108/rendezvous";
const JSON: &str = "/_matrix/client/unstable/io.element.msc4388/rendezvous";

fn server(qr_login: QrLogin) -> Server {
    let oauth = OAuth { enabled: true, qr_login, ..OAuth::default() };
    let public_base_url = Some("https://matrix.us.example".to_owned());
    Server::with(Settings { oauth, public_base_url, ..open_settings() }, Vec::new())
}

/// Status, entity tag and text of an answer.
async fn ask(
    server: &Server,
    method: Method,
    path: &str,
    headers: &[(&'static str, &str)],
    body: &str,
) -> (u16, String, String) {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = server.router.clone().oneshot(request.body(Body::from(body.to_owned())).unwrap()).await.unwrap();
    let (parts, body) = answer.into_parts();
    if parts.status.is_success() && parts.status != 204 {
        assert_eq!(parts.headers[header::CACHE_CONTROL], "no-store");
        assert_eq!(parts.headers[header::ACCESS_CONTROL_EXPOSE_HEADERS], "ETag");
        for name in [header::EXPIRES, header::LAST_MODIFIED] {
            assert!(parts.headers[name].to_str().unwrap().ends_with(" GMT"));
        }
    }
    let tag = parts.headers.get(header::ETAG).map(|tag| tag.to_str().unwrap().to_owned()).unwrap_or_default();
    let bytes = body.collect().await.unwrap().to_bytes();
    (parts.status.as_u16(), tag, String::from_utf8(bytes.to_vec()).unwrap())
}

#[tokio::test]
async fn two_devices_pass_a_text_to_and_fro() {
    let server = server(QrLogin::Open);
    let text = ("content-type", "text/plain");
    let (status, tag, body) = ask(&server, Method::POST, TEXT, &[text], "from the new device").await;
    assert_eq!(status, 201);
    let url = serde_json::from_str::<serde_json::Value>(&body).unwrap()["url"].as_str().unwrap().to_owned();
    let path = url.strip_prefix("https://matrix.us.example").unwrap();
    assert!(path.starts_with(TEXT) && path.len() > TEXT.len() + 20);

    let (status, seen, body) = ask(&server, Method::GET, path, &[], "").await;
    assert_eq!((status, &*seen, &*body), (200, &*tag, "from the new device"));
    let (status, same, body) = ask(&server, Method::GET, path, &[("if-none-match", &tag)], "").await;
    assert_eq!((status, &*same, &*body), (304, &*tag, ""));
    let (status, next, _) = ask(&server, Method::PUT, path, &[text, ("if-match", &tag)], "from the old one").await;
    assert_eq!(status, 202);
    assert_ne!(next, tag);
    let (status, seen, body) = ask(&server, Method::PUT, path, &[text, ("if-match", &tag)], "too late").await;
    assert_eq!((status, &seen), (412, &next));
    assert!(body.contains("M_CONCURRENT_WRITE"));
    let (status, _, body) = ask(&server, Method::GET, path, &[("if-none-match", &tag)], "").await;
    assert_eq!((status, &*body), (200, "from the old one"));

    let large = "x".repeat(4097);
    assert_eq!(ask(&server, Method::PUT, path, &[text, ("if-match", &next)], &large).await.0, 413);
    assert_eq!(ask(&server, Method::PUT, path, &[text], "no tag").await.0, 400);
    let html = ("content-type", "text/html");
    assert_eq!(ask(&server, Method::PUT, path, &[html, ("if-match", &next)], "<p>").await.0, 400);
    assert_eq!(ask(&server, Method::POST, TEXT, &[html], "<p>").await.0, 400);
    assert_eq!(ask(&server, Method::DELETE, path, &[], "").await.0, 204);
    for method in [Method::GET, Method::DELETE] {
        assert_eq!(ask(&server, method, path, &[], "").await.0, 404);
    }
}

#[tokio::test]
async fn a_channel_in_json_is_replaced_by_turns_and_ends_by_itself() {
    let server = server(QrLogin::Open);
    assert_eq!(server.get("", JSON).await.ok(), json!({ "create_available": true }));
    let made = server.post("", JSON, json!({ "data": "one" })).await.ok();
    let path = format!("{JSON}/{}", made["id"].as_str().unwrap());
    let read = server.get("", &path).await.ok();
    assert_eq!((&read["data"], &read["sequence_token"]), (&json!("one"), &made["sequence_token"]));
    let next = server.put("", &path, json!({ "data": "two", "sequence_token": made["sequence_token"] })).await.ok();
    assert_ne!(next["sequence_token"], made["sequence_token"]);
    let late = json!({ "data": "three", "sequence_token": made["sequence_token"] });
    server.put("", &path, late).await.refused(409, "IO_ELEMENT_MSC4388_CONCURRENT_WRITE");
    assert_eq!(server.get("", &path).await.ok()["data"], "two");
    server.post("", JSON, json!({ "data": "x".repeat(4097) })).await.refused(413, "M_TOO_LARGE");
    server.advance_ms(read["expires_in_ms"].as_u64().unwrap());
    server.get("", &path).await.refused(404, "M_NOT_FOUND");
    let made = server.post("", JSON, json!({ "data": "one" })).await.ok();
    let path = format!("{JSON}/{}", made["id"].as_str().unwrap());
    server.delete("", &path).await.ok();
    server.delete("", &path).await.refused(404, "M_NOT_FOUND");
}

#[tokio::test]
async fn the_operator_says_who_may_open_a_channel_and_nobody_opens_many() {
    let closed = Server::new();
    closed.get("", JSON).await.refused(404, "M_UNRECOGNIZED");
    closed.post("", JSON, json!({ "data": "" })).await.refused(404, "M_UNRECOGNIZED");
    assert_eq!(ask(&closed, Method::POST, TEXT, &[("content-type", "text/plain")], "").await.0, 404);
    let versions = closed.get("", "/versions").await.ok();
    assert_eq!(versions["unstable_features"]["org.matrix.msc4108"], false);

    let guarded = server(QrLogin::Authenticated);
    let alice = guarded.user("alice").await;
    assert_eq!(guarded.get("", JSON).await.ok(), json!({ "create_available": false }));
    assert_eq!(guarded.get(&alice.token, JSON).await.ok(), json!({ "create_available": true }));
    guarded.post("", JSON, json!({ "data": "" })).await.refused(403, "M_FORBIDDEN");
    assert_eq!(ask(&guarded, Method::POST, TEXT, &[("content-type", "text/plain")], "").await.0, 404);
    let made = guarded.post(&alice.token, JSON, json!({ "data": "x" })).await.ok();
    // The device that is yet to be signed in reads and answers.
    let path = format!("{JSON}/{}", made["id"].as_str().unwrap());
    guarded.put("", &path, json!({ "data": "y", "sequence_token": made["sequence_token"] })).await.ok();
    let versions = guarded.get("", "/versions").await.ok();
    assert_eq!(versions["unstable_features"]["org.matrix.msc4108"], false);
    assert_eq!(versions["unstable_features"]["io.element.msc4388"], true);

    for _ in 0..999 {
        guarded.post(&alice.token, JSON, json!({ "data": "x" })).await.ok();
    }
    guarded.post(&alice.token, JSON, json!({ "data": "x" })).await.refused(429, "M_LIMIT_EXCEEDED");
}

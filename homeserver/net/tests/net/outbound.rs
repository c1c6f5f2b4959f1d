//! Requests to services: application services, push gateways.

use matron_core::ports::{Federation as _, PeerError, http_method::Method};

use crate::world::{PUBLIC, World, json, outbound};

#[tokio::test]
async fn a_request_carries_its_token_type_and_length() {
    let world = World::new();
    let server = world.tls_server(&["push.example"], |_| async { json(200, r#"{"rejected":[]}"#) }).await;
    world.dns("push.example", &[&[PUBLIC]]);
    world.serve(&format!("{PUBLIC}:443"), &server);
    let mut request = outbound("https://push.example/_matrix/push/v1/notify?x=%2F", false);
    request.bearer = Some("secret".to_owned());
    let response = world.federation().outbound(request).await.unwrap();
    assert_eq!(response.content_type.as_deref(), Some("application/json"));
    let seen = server.seen().remove(0);
    assert_eq!(seen.head.method, "POST");
    assert_eq!(seen.head.uri, "/_matrix/push/v1/notify?x=%2F");
    assert_eq!(seen.header("authorization"), Some("Bearer secret"));
    assert_eq!(seen.header("content-type"), Some("application/json"));
    assert_eq!(seen.header("content-length"), Some("7"));
    assert_eq!(seen.header("transfer-encoding"), None);
    assert_eq!(seen.body, r#"{"a":1}"#);
}

#[tokio::test]
async fn a_get_has_no_body() {
    let world = World::new();
    let server = world.tls_server(&["a.example"], |_| async { json(200, "{}") }).await;
    world.dns("a.example", &[&[PUBLIC]]);
    world.serve(&format!("{PUBLIC}:443"), &server);
    let mut request = outbound("https://a.example/users/x", false);
    request.method = Method::Get;
    world.federation().outbound(request).await.unwrap();
    let seen = server.seen().remove(0);
    assert!(seen.body.is_empty());
    assert_eq!((seen.header("content-type"), seen.header("content-length")), (None, None));
}

#[tokio::test]
async fn a_configured_service_may_be_plain_and_private() {
    let world = World::new();
    let server = world.plain_server(|_| async { json(200, "{}") }).await;
    world.dns("bridge.internal", &[&["10.1.1.1"]]);
    world.serve("10.1.1.1:9000", &server);
    let federation = world.federation();
    federation.outbound(outbound("http://bridge.internal:9000/", true)).await.unwrap();
    assert!(matches!(
        federation.outbound(outbound("http://bridge.internal:9000/", false)).await,
        Err(PeerError::Resolve(_))
    ));
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn the_trusted_connection_to_a_private_service_is_not_lent_to_strangers() {
    let world = World::new();
    let server = world.tls_server(&["bridge.internal"], |_| async { json(200, "{}") }).await;
    world.dns("bridge.internal", &[&["10.1.1.1"]]);
    world.serve("10.1.1.1:443", &server);
    let federation = world.federation();
    federation.outbound(outbound("https://bridge.internal/", true)).await.unwrap();
    federation.outbound(outbound("https://bridge.internal/", false)).await.unwrap_err();
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn a_redirect_is_reported_and_not_followed() {
    let world = World::new();
    let server = world
        .tls_server(&["a.example"], |_| async {
            let mut response = json(307, "");
            response.headers_mut().insert("Location", "https://10.0.0.1/".parse().unwrap());
            response
        })
        .await;
    world.dns("a.example", &[&[PUBLIC]]);
    world.serve(&format!("{PUBLIC}:443"), &server);
    let result = world.federation().outbound(outbound("https://a.example/", false)).await;
    assert!(matches!(result, Err(PeerError::Status { status: 307, .. })));
    assert_eq!(world.dialled().len(), 1);
}

//! X-Matrix on the wire.

use matron_core::{
    federation::keys::x_matrix::{SignedRequest, XMatrix, request_verifies},
    ports::{Federation as _, PeerError, http_method::Method},
};

use crate::world::{PUBLIC, World, get, json};

#[tokio::test]
async fn the_header_verifies_with_the_published_key() {
    let world = World::new();
    let server = world.tls_server(&["a.example"], |_| async { json(200, "{}") }).await;
    world.dns("a.example", &[&[PUBLIC]]);
    world.serve(&format!("{PUBLIC}:8448"), &server);
    let federation = world.federation();
    let mut request = get("a.example");
    request.signed = true;
    request.path_and_query = "/_matrix/federation/v1/make_join/!r%2F:a/@u:us.example?ver=11&ver=12".to_owned();
    federation.request(request.clone()).await.unwrap();
    request.method = Method::Put;
    request.body = Some(serde_json::json!({"z": "é", "a": [1, {"c": null, "b": -5}]}));
    federation.request(request).await.unwrap();

    for seen in server.seen() {
        let header = XMatrix::parse(seen.header("authorization").unwrap()).unwrap();
        assert_eq!(header.origin, "us.example");
        assert_eq!(header.destination.as_deref().unwrap(), "a.example", "the name before delegation, without port");
        assert_eq!(header.key_id, "ed25519:test");
        let content = (!seen.body.is_empty()).then(|| serde_json::from_slice(&seen.body).unwrap());
        assert_eq!(content.is_some(), seen.head.method == "PUT");
        let uri = seen.head.uri.to_string();
        let signed = SignedRequest {
            method: seen.head.method.as_str(),
            uri: &uri,
            origin: &header.origin,
            destination: header.destination.as_deref(),
            content: content.as_ref(),
        };
        assert!(request_verifies(&signed, &World::key().verify_key(), &header.signature));
    }
}

#[tokio::test]
async fn a_body_in_a_get_is_neither_sent_nor_signed() {
    let world = World::new();
    let server = world.tls_server(&[PUBLIC], |_| async { json(200, "{}") }).await;
    world.serve(&format!("{PUBLIC}:8448"), &server);
    let mut request = get(PUBLIC);
    request.signed = true;
    request.body = Some(serde_json::json!({"a": 1}));
    world.federation().request(request).await.unwrap();
    let seen = server.seen().remove(0);
    let header = XMatrix::parse(seen.header("authorization").unwrap()).unwrap();
    assert!(seen.body.is_empty());
    let signed = SignedRequest {
        method: "GET",
        uri: "/_matrix/federation/v1/version",
        origin: &header.origin,
        destination: header.destination.as_deref(),
        content: None,
    };
    assert!(request_verifies(&signed, &World::key().verify_key(), &header.signature));
}

#[tokio::test]
async fn a_path_that_would_change_on_the_wire_is_refused() {
    let world = World::new();
    let federation = world.federation();
    for path in ["/_matrix/a b", "/_matrix/#fragment", "_matrix/x", "", "/_matrix/\r\nHost: x", "https://b.example/"] {
        let mut request = get(PUBLIC);
        request.path_and_query = path.to_owned();
        assert!(matches!(federation.request(request).await, Err(PeerError::Malformed(_))), "{path:?}");
    }
    assert!(world.dialled().is_empty());
}

//! Requests to identity servers.

use std::time::Duration;

use matron_core::{
    federation::keys::x_matrix::{SignedRequest, XMatrix, request_verifies},
    ports::{Federation as _, IdentityProof, IdentityRequest, PeerError, http_method::Method},
};

use crate::world::{PUBLIC, World, json};

const UNBIND: &str = "/_matrix/identity/v2/3pid/unbind";

fn request(server: &str, proof: IdentityProof) -> IdentityRequest {
    IdentityRequest {
        server: server.try_into().unwrap(),
        trusted: false,
        method: Method::Post,
        path_and_query: UNBIND.to_owned(),
        proof,
        body: Some(serde_json::json!({"mxid": "@a:us.example", "threepid": {"medium": "email"}})),
        timeout: Duration::from_secs(20),
        max_bytes: 1024,
    }
}

#[tokio::test]
async fn a_request_proves_itself_by_token_or_by_signature() {
    let world = World::new();
    let server = world.tls_server(&["id.example"], |_| async { json(200, "{}") }).await;
    world.dns("id.example", &[&[PUBLIC]]);
    world.serve(&format!("{PUBLIC}:443"), &server);
    world.serve(&format!("{PUBLIC}:8090"), &server);
    let federation = world.federation();
    federation.identity(request("id.example", IdentityProof::UserToken("secret".to_owned()))).await.unwrap();
    federation.identity(request("id.example:8090", IdentityProof::Signed)).await.unwrap();
    federation.identity(request("id.example", IdentityProof::None)).await.unwrap();
    let seen = server.seen();
    assert_eq!(seen[0].header("authorization"), Some("Bearer secret"));
    assert_eq!(seen[2].header("authorization"), None);

    let signed = &seen[1];
    assert_eq!((signed.header("host"), signed.head.uri.to_string().as_str()), (Some("id.example:8090"), UNBIND));
    let header = XMatrix::parse(signed.header("authorization").unwrap()).unwrap();
    assert_eq!(header.origin, "us.example");
    assert_eq!(header.destination.as_deref().unwrap(), "id.example:8090");
    let content = serde_json::from_slice(&signed.body).unwrap();
    let verified = SignedRequest {
        method: "POST",
        uri: UNBIND,
        origin: &header.origin,
        destination: header.destination.as_deref(),
        content: Some(&content),
    };
    assert!(request_verifies(&verified, &World::key().verify_key(), &header.signature));
}

#[tokio::test]
async fn only_one_that_the_operator_named_may_be_at_a_private_address() {
    let world = World::new();
    let server = world.tls_server(&["id.internal"], |_| async { json(200, "{}") }).await;
    world.dns("id.internal", &[&["10.1.1.1"]]);
    world.serve("10.1.1.1:443", &server);
    let federation = world.federation();
    let mut request = request("id.internal", IdentityProof::None);
    let refused = federation.identity(request.clone()).await;
    assert!(matches!(refused, Err(PeerError::Resolve(_))), "{refused:?}");
    assert!(world.dialled().is_empty());
    request.trusted = true;
    federation.identity(request).await.unwrap();
}

#[tokio::test]
async fn what_it_answers_is_bounded() {
    let world = World::new();
    let server = world.tls_server(&["id.example"], |_| async { json(200, &"x".repeat(2000)) }).await;
    world.dns("id.example", &[&[PUBLIC]]);
    world.serve(&format!("{PUBLIC}:443"), &server);
    let result = world.federation().identity(request("id.example", IdentityProof::None)).await;
    assert!(matches!(result, Err(PeerError::TooLarge)), "{result:?}");
}

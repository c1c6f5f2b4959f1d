//! Every endpoint of the specification is served, and nobody gets past its door who should not.

use http::Request;
use matron_conformance::{Auth, Endpoint, SPECIFICATION};
use serde_json::json;

use crate::server::{Answer, Server};

/// Endpoints that are not served, each with the reason.
const NOT_SERVED: &[(&str, &str)] = &[(
    "getAuthMetadata",
    "the specification wants M_UNRECOGNIZED while the OAuth 2.0 API is off, as it is in this test",
)];

/// Endpoints that answer without a token although the specification asks for one, each with the reason.
const OPEN: &[(&str, &str)] = &[];

/// A path of the endpoint; what is filled in has the right form and does not exist.
fn path_of(endpoint: &Endpoint) -> String {
    let filled =
        endpoint.path.split('/').map(|part| match part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) {
            None => part.to_owned(),
            Some("userId" | "user_id") => "@nobody:us.example".to_owned(),
            Some("roomId" | "roomIdOrAlias") => "!nowhere:us.example".to_owned(),
            Some("roomAlias") => "%23nothing:us.example".to_owned(),
            Some("eventId" | "event_id") => "$nothing".to_owned(),
            Some("serverName") => "us.example".to_owned(),
            Some("eventType" | "type" | "keyName") => "org.example.nothing".to_owned(),
            Some("receiptType") => "m.read".to_owned(),
            Some("kind") => "override".to_owned(),
            Some(_) => "nothing".to_owned(),
        });
    filled.collect::<Vec<_>>().join("/")
}

/// Asks without a token and without a signature.
async fn ask(server: &Server, endpoint: &Endpoint) -> Answer {
    let request = Request::builder().method(endpoint.method.as_str()).uri(path_of(endpoint));
    let body = if endpoint.method == "GET" { String::new() } else { "{}".to_owned() };
    server.raw(request.body(body.into()).unwrap()).await
}

#[tokio::test]
async fn every_endpoint_of_the_specification_is_served() {
    let server = Server::new();
    let mut missing = Vec::new();
    for endpoint in &SPECIFICATION.endpoints {
        // Which route it is, is known before who asks.
        let answer = ask(&server, endpoint).await;
        let served = answer.body["errcode"] != "M_UNRECOGNIZED" && answer.status != 405;
        let excused = NOT_SERVED.iter().any(|(name, _)| *name == endpoint.name);
        if served == excused {
            missing.push(format!("{} {}: {}", endpoint.method, endpoint.path, answer.body));
        }
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

#[tokio::test]
async fn whoever_has_no_token_is_told_so_by_every_endpoint_that_wants_one() {
    let server = Server::new();
    let mut open = Vec::new();
    for endpoint in SPECIFICATION.endpoints.iter().filter(|endpoint| endpoint.auth == Auth::Token) {
        let answer = ask(&server, endpoint).await;
        let refused = (answer.status.as_u16(), &answer.body["errcode"]) == (401, &json!("M_MISSING_TOKEN"));
        let excused = OPEN.iter().any(|(name, _)| *name == endpoint.name);
        if refused == excused {
            open.push(format!("{} {}: {} {}", endpoint.method, endpoint.path, answer.status, answer.body));
        }
    }
    assert!(open.is_empty(), "{}", open.join("\n"));
}

#[tokio::test]
async fn whoever_does_not_sign_is_told_nothing_by_other_servers_endpoints() {
    let server = Server::new();
    let mut open = Vec::new();
    for endpoint in SPECIFICATION.endpoints.iter().filter(|endpoint| endpoint.auth == Auth::Signed) {
        let answer = ask(&server, endpoint).await;
        if endpoint.api == "federation" && answer.status != 401 {
            open.push(format!("{} {}: {} {}", endpoint.method, endpoint.path, answer.status, answer.body));
        }
    }
    assert!(open.is_empty(), "{}", open.join("\n"));
}

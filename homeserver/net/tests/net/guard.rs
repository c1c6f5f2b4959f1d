//! No request reaches a private address that the operator did not name.

use matron_core::ports::{Federation as _, PeerError};

use crate::world::{PUBLIC, World, ask, json, outbound};

fn is_refused(result: &Result<matron_core::ports::PeerResponse, PeerError>) -> bool {
    matches!(result, Err(PeerError::Resolve(why)) if why.contains("allow_ip_ranges"))
}

#[tokio::test]
async fn private_addresses_are_never_dialled() {
    let world = World::new();
    let federation = world.federation();
    for name in
        ["127.0.0.1:8448", "10.0.0.1", "[::1]:8448", "[::ffff:127.0.0.1]:8448", "[fd00::1]", "169.254.169.254:80"]
    {
        assert!(is_refused(&ask(&federation, name).await), "{name}");
    }
    for private in ["127.0.0.1", "192.168.1.1", "::1", "::ffff:10.0.0.1", "64:ff9b::a00:1", "100.64.0.1"] {
        world.dns("private.example", &[&[private]]);
        assert!(is_refused(&ask(&federation, "private.example:8448").await), "{private}");
        assert!(is_refused(&federation.outbound(outbound("https://private.example/", false)).await), "{private}");
    }
    for url in ["https://127.0.0.1/", "https://0x7f.1/", "https://[::ffff:7f00:1]/"] {
        assert!(is_refused(&federation.outbound(outbound(url, false)).await), "{url}");
    }
    assert_eq!(world.dialled(), Vec::<String>::new());
}

#[tokio::test]
async fn a_name_that_turns_private_between_two_requests_is_refused() {
    let world = World::new();
    let server = world
        .tls_server(&["rebind.example"], |_| async {
            let mut response = json(200, "{}");
            response.headers_mut().insert("Connection", "close".parse().unwrap());
            response
        })
        .await;
    world.dns("rebind.example", &[&[PUBLIC], &["127.0.0.1"]]);
    world.serve(&format!("{PUBLIC}:443"), &server);
    world.serve("127.0.0.1:443", &server);
    let federation = world.federation();
    federation.outbound(outbound("https://rebind.example/", false)).await.unwrap();
    assert!(is_refused(&federation.outbound(outbound("https://rebind.example/", false)).await));
    assert_eq!(world.dialled(), [format!("{PUBLIC}:443")]);
}

#[tokio::test]
async fn of_a_mixed_answer_only_public_addresses_are_dialled() {
    let world = World::new();
    let server = world.tls_server(&["mixed.example"], |_| async { json(200, "{}") }).await;
    world.dns("mixed.example", &[&["127.0.0.1", "::1", PUBLIC, "10.0.0.1"]]);
    world.serve(&format!("{PUBLIC}:443"), &server);
    world.federation().outbound(outbound("https://mixed.example/", false)).await.unwrap();
    assert_eq!(world.dialled(), [format!("{PUBLIC}:443")]);
}

#[tokio::test]
async fn redirects_and_delegations_to_private_addresses_lead_nowhere() {
    let world = World::new();
    let web = world
        .tls_server(&["redirect.example", "delegate.example", "srv.example"], |seen| async move {
            match seen.header("host").unwrap() {
                "redirect.example" => {
                    let mut response = json(302, "");
                    response.headers_mut().insert("Location", "https://10.0.0.1/secret".parse().unwrap());
                    response
                }
                "delegate.example" => json(200, r#"{"m.server": "127.0.0.1:8008"}"#),
                _ => json(404, ""),
            }
        })
        .await;
    for name in ["redirect.example", "delegate.example", "srv.example"] {
        world.dns(name, &[&[PUBLIC]]);
    }
    world.dns("inside.example", &[&["10.0.0.2"]]);
    world.srv("_matrix-fed._tcp.srv.example", &[(0, 0, "inside.example", 22)]);
    world.serve(&format!("{PUBLIC}:443"), &web);
    let federation = world.federation();
    for name in ["redirect.example", "delegate.example", "srv.example"] {
        ask(&federation, name).await.unwrap_err();
    }
    for address in world.dialled() {
        assert!(address.starts_with(PUBLIC), "{address}");
    }
}

#[tokio::test]
async fn a_delegation_is_not_followed_to_plain_http() {
    let world = World::new();
    let web = world
        .tls_server(&["a.example"], |_| async {
            let mut response = json(302, "");
            response.headers_mut().insert("Location", "http://b.example/".parse().unwrap());
            response
        })
        .await;
    world.dns("a.example", &[&[PUBLIC]]);
    world.dns("b.example", &[&[PUBLIC]]);
    world.serve(&format!("{PUBLIC}:443"), &web);
    ask(&world.federation(), "a.example").await.unwrap_err();
    assert!(!world.asked().contains(&"b.example".to_owned()));
}

#[tokio::test]
async fn a_named_range_is_reached() {
    let mut world = World::new();
    world.config.allow_ip_ranges = vec!["127.0.0.0/8".parse().unwrap()];
    let server = world.tls_server(&["127.0.0.1"], |_| async { json(200, "{}") }).await;
    world.serve("127.0.0.1:8800", &server);
    ask(&world.federation(), "127.0.0.1:8800").await.unwrap();
}

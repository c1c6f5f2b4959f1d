//! The steps of "Resolving server names", each against a server that proves its name.

use crate::world::{PUBLIC, Seen, World, ask, json};

async fn ok(_seen: Seen) -> http::Response<http_body_util::Full<bytes::Bytes>> {
    json(200, "{}")
}

fn host_of(server: &crate::world::Server) -> String {
    server.seen().last().unwrap().header("host").unwrap().to_owned()
}

#[tokio::test]
async fn an_ip_literal_is_used_as_it_is() {
    let world = World::new();
    let server = world.tls_server(&[PUBLIC], ok).await;
    world.serve(&format!("{PUBLIC}:8448"), &server);
    world.serve(&format!("{PUBLIC}:9000"), &server);
    let federation = world.federation();
    ask(&federation, PUBLIC).await.unwrap();
    assert_eq!(host_of(&server), PUBLIC);
    ask(&federation, &format!("{PUBLIC}:9000")).await.unwrap();
    assert_eq!(host_of(&server), format!("{PUBLIC}:9000"));
    assert!(world.asked().is_empty(), "nobody was asked");
}

#[tokio::test]
async fn an_ipv6_literal_keeps_its_brackets_in_the_host_header() {
    let world = World::new();
    let server = world.tls_server(&["2606:4700::1111"], ok).await;
    world.serve("[2606:4700::1111]:8448", &server);
    ask(&world.federation(), "[2606:4700::1111]").await.unwrap();
    assert_eq!(host_of(&server), "[2606:4700::1111]");
}

#[tokio::test]
async fn an_explicit_port_skips_delegation() {
    let world = World::new();
    let server = world.tls_server(&["a.example"], ok).await;
    world.dns("a.example", &[&[PUBLIC]]);
    world.serve(&format!("{PUBLIC}:1234"), &server);
    ask(&world.federation(), "a.example:1234").await.unwrap();
    assert_eq!(host_of(&server), "a.example:1234");
    assert_eq!(world.dialled(), [format!("{PUBLIC}:1234")]);
}

#[tokio::test]
async fn a_delegation_with_port_leads_there_under_its_own_name() {
    let world = World::new();
    let web = world.tls_server(&["a.example"], |_| async { json(200, r#"{"m.server": "m.a.example:443"}"#) }).await;
    let server = world.tls_server(&["m.a.example"], ok).await;
    world.dns("a.example", &[&[PUBLIC]]);
    world.dns("m.a.example", &[&["93.184.216.35"]]);
    world.serve(&format!("{PUBLIC}:443"), &web);
    world.serve("93.184.216.35:443", &server);
    let federation = world.federation();
    ask(&federation, "a.example").await.unwrap();
    ask(&federation, "a.example").await.unwrap();
    assert_eq!(host_of(&server), "m.a.example:443");
    assert_eq!(host_of(&web), "a.example");
    assert_eq!(web.seen().len(), 1, "the delegation is remembered");
    assert_eq!(web.seen()[0].head.uri.path(), "/.well-known/matrix/server");
}

#[tokio::test]
async fn a_delegation_without_port_is_looked_up_as_a_service() {
    let world = World::new();
    let web = world.tls_server(&["a.example"], |_| async { json(200, r#"{"m.server": "m.a.example"}"#) }).await;
    let server = world.tls_server(&["m.a.example"], ok).await;
    world.dns("a.example", &[&[PUBLIC]]);
    world.dns("box.example", &[&["93.184.216.35"]]);
    world.srv("_matrix-fed._tcp.m.a.example", &[(10, 0, "box.example", 4430)]);
    world.srv("_matrix._tcp.m.a.example", &[(10, 0, "old.example", 4431)]);
    world.serve(&format!("{PUBLIC}:443"), &web);
    world.serve("93.184.216.35:4430", &server);
    ask(&world.federation(), "a.example").await.unwrap();
    assert_eq!(host_of(&server), "m.a.example", "neither the record's target nor the undelegated name");
}

#[tokio::test]
async fn a_delegation_to_an_address_needs_a_certificate_for_the_address() {
    let world = World::new();
    let web = world.tls_server(&["a.example"], |_| async { json(200, r#"{"m.server": "93.184.216.35"}"#) }).await;
    let server = world.tls_server(&["93.184.216.35"], ok).await;
    world.dns("a.example", &[&[PUBLIC]]);
    world.serve(&format!("{PUBLIC}:443"), &web);
    world.serve("93.184.216.35:8448", &server);
    ask(&world.federation(), "a.example").await.unwrap();
    assert_eq!(host_of(&server), "93.184.216.35");
}

#[tokio::test]
async fn without_delegation_services_are_tried_by_priority_and_weight() {
    let world = World::new();
    let server = world.tls_server(&["a.example"], ok).await;
    world.dns("a.example", &[&["93.184.216.40"]]);
    world.dns("third.example", &[&["93.184.216.35"]]);
    for (index, host) in ["first.example", "second.example"].iter().enumerate() {
        world.dns(host, &[&[&format!("93.184.216.{}", 50 + index)]]);
    }
    let records = [(20, 5, "third.example", 1), (10, 1, "second.example", 2), (10, 9, "first.example", 3)];
    world.srv("_matrix._tcp.a.example", &records);
    world.serve("93.184.216.35:1", &server);
    ask(&world.federation(), "a.example").await.unwrap();
    assert_eq!(host_of(&server), "a.example");
    assert_eq!(world.dialled(), ["93.184.216.40:443", "93.184.216.50:3", "93.184.216.51:2", "93.184.216.35:1"]);
}

#[tokio::test]
async fn without_anything_port_8448_is_used() {
    let world = World::new();
    let server = world.tls_server(&["a.example"], ok).await;
    let web = world.tls_server(&["a.example"], |_| async { json(404, "{}") }).await;
    world.dns("a.example", &[&[PUBLIC]]);
    world.serve(&format!("{PUBLIC}:443"), &web);
    world.serve(&format!("{PUBLIC}:8448"), &server);
    let federation = world.federation();
    ask(&federation, "a.example").await.unwrap();
    assert_eq!(host_of(&server), "a.example");
    assert_eq!(web.seen().len(), 1);
    // Beyond the life of the route, the refusal itself is still remembered, then asked again.
    world.clock.advance_ms(30 * 1000);
    ask(&federation, "a.example").await.unwrap();
    assert_eq!(web.seen().len(), 1);
    world.clock.advance_ms(10 * 60 * 1000);
    ask(&federation, "a.example").await.unwrap();
    assert_eq!(web.seen().len(), 2);
}

#[tokio::test]
async fn a_malformed_delegation_is_none() {
    let world = World::new();
    for (index, document) in ["", "[]", "{}", r#"{"m.server": 1}"#, r#"{"m.server": "a b"}"#].into_iter().enumerate() {
        let name = format!("a{index}.example");
        let web = world.tls_server(&[&name], move |_| async move { json(200, document) }).await;
        let server = world.tls_server(&[&name], ok).await;
        world.dns(&name, &[&[PUBLIC]]);
        world.serve(&format!("{PUBLIC}:443"), &web);
        world.serve(&format!("{PUBLIC}:8448"), &server);
        ask(&world.federation(), &name).await.unwrap();
        assert_eq!(host_of(&server), name);
    }
}

#[tokio::test]
async fn redirects_of_the_delegation_are_followed_but_not_for_ever() {
    let world = World::new();
    let web = world
        .tls_server(&["a.example", "b.example"], |seen| async move {
            let (status, location) = match (seen.header("host").unwrap(), seen.head.uri.path()) {
                ("a.example", "/.well-known/matrix/server") => (302, "https://b.example/x"),
                ("b.example", "/x") => (307, "/y"),
                ("b.example", "/y") => return json(200, r#"{"m.server": "m.example:1"}"#),
                _ => (301, "/loop"),
            };
            let mut response = json(status, "");
            response.headers_mut().insert("Location", location.parse().unwrap());
            response
        })
        .await;
    let server = world.tls_server(&["m.example", "loop.example"], ok).await;
    let looping = world
        .tls_server(&["loop.example"], |_| async {
            let mut response = json(301, "");
            response.headers_mut().insert("Location", "/.well-known/matrix/server".parse().unwrap());
            response
        })
        .await;
    for name in ["a.example", "b.example", "m.example"] {
        world.dns(name, &[&[PUBLIC]]);
    }
    world.dns("loop.example", &[&["93.184.216.36"]]);
    world.serve(&format!("{PUBLIC}:443"), &web);
    world.serve(&format!("{PUBLIC}:1"), &server);
    world.serve("93.184.216.36:443", &looping);
    world.serve("93.184.216.36:8448", &server);
    let federation = world.federation();
    ask(&federation, "a.example").await.unwrap();
    assert_eq!(host_of(&server), "m.example:1");
    ask(&federation, "loop.example").await.unwrap();
    assert_eq!(host_of(&server), "loop.example");
    assert_eq!(looping.seen().len(), 6);
}

#[tokio::test]
async fn a_delegation_outlives_an_outage_of_the_web_server() {
    let world = World::new();
    let web = world.tls_server(&["a.example"], |_| async { json(200, r#"{"m.server": "m.a.example:443"}"#) }).await;
    let server = world.tls_server(&["m.a.example"], ok).await;
    world.dns("a.example", &[&[PUBLIC]]);
    world.dns("m.a.example", &[&["93.184.216.35"]]);
    world.serve(&format!("{PUBLIC}:443"), &web);
    world.serve("93.184.216.35:443", &server);
    let federation = world.federation();
    ask(&federation, "a.example").await.unwrap();
    drop(web);
    world.clock.advance_ms(25 * 60 * 60 * 1000);
    ask(&federation, "a.example").await.unwrap();
    assert_eq!(host_of(&server), "m.a.example:443");
}

#[tokio::test]
async fn a_configured_address_needs_no_look_up_and_may_be_private() {
    let mut world = World::new();
    let server = world.tls_server(&["trust.nhs.example"], ok).await;
    world.config.addresses.insert("trust.nhs.example".to_owned(), "10.0.0.7:9443".to_owned());
    world.config.addresses.insert("trust.nhs.example:8449".to_owned(), "box.internal:9444".to_owned());
    world.dns("box.internal", &[&["fd00::7"]]);
    world.serve("10.0.0.7:9443", &server);
    world.serve("[fd00::7]:9444", &server);
    let federation = world.federation();
    ask(&federation, "trust.nhs.example").await.unwrap();
    assert_eq!(host_of(&server), "trust.nhs.example");
    ask(&federation, "trust.nhs.example:8449").await.unwrap();
    assert_eq!(host_of(&server), "trust.nhs.example:8449");
}

#[tokio::test]
async fn we_never_speak_to_ourselves() {
    assert!(ask(&World::new().federation(), "us.example").await.is_err());
}

#[tokio::test]
async fn many_at_once_ask_for_a_delegation_once() {
    let world = World::new();
    let web = world.tls_server(&["a.example"], |_| async { json(200, r#"{"m.server": "m.a.example:443"}"#) }).await;
    let server = world.tls_server(&["m.a.example"], ok).await;
    world.dns("a.example", &[&[PUBLIC]]);
    world.dns("m.a.example", &[&["93.184.216.35"]]);
    world.serve(&format!("{PUBLIC}:443"), &web);
    world.serve("93.184.216.35:443", &server);
    let federation = world.federation();
    for result in futures_util::future::join_all((0..20).map(|_| ask(&federation, "a.example"))).await {
        result.unwrap();
    }
    assert_eq!(web.seen().len(), 1);
    assert_eq!(server.seen().len(), 20);
}

//! Whose certificates are believed.

use matron_core::ports::{Federation as _, PeerError};
use matron_net::{NetConfig, NetError, NetFederation, SystemNetwork};

use crate::world::{PUBLIC, World, ask, json, outbound};

#[tokio::test]
async fn a_certificate_for_another_name_is_refused_before_anything_is_sent() {
    let world = World::new();
    let server = world.tls_server(&["other.example"], |_| async { json(200, "{}") }).await;
    world.dns("a.example", &[&[PUBLIC]]);
    world.serve(&format!("{PUBLIC}:8448"), &server);
    let error = ask(&world.federation(), "a.example:8448").await.unwrap_err();
    assert!(matches!(error, PeerError::Connect(_)), "{error}");
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn a_certificate_of_an_unknown_authority_is_refused() {
    let (mut world, stranger) = (World::new(), World::new());
    let server = stranger.tls_server(&["a.example"], |_| async { json(200, "{}") }).await;
    world.dns("a.example", &[&[PUBLIC]]);
    world.serve(&format!("{PUBLIC}:8448"), &server);
    ask(&world.federation(), "a.example:8448").await.unwrap_err();
    assert!(server.seen().is_empty());
    world.config.ca_files.extend(stranger.config.ca_files.clone());
    ask(&world.federation(), "a.example:8448").await.unwrap();
}

#[tokio::test]
async fn skipping_verification_never_covers_homeservers() {
    let (mut world, stranger) = (World::new(), World::new());
    world.config.insecure_skip_tls_verify = true;
    let server = stranger.tls_server(&["a.example"], |_| async { json(200, "{}") }).await;
    world.dns("a.example", &[&[PUBLIC]]);
    world.serve(&format!("{PUBLIC}:8448"), &server);
    let federation = world.federation();
    ask(&federation, "a.example:8448").await.unwrap_err();
    federation.outbound(outbound("https://a.example:8448/", false)).await.unwrap();
}

#[tokio::test]
async fn a_bad_setting_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let garbage = directory.path().join("garbage.pem");
    std::fs::write(&garbage, "not a certificate").unwrap();
    let new = |config: NetConfig| {
        let world = World::new();
        let name = ruma::ServerName::parse("us.example").unwrap();
        let network = std::sync::Arc::new(SystemNetwork::new());
        NetFederation::with_network(config, name, World::key(), world.clock.clone(), network)
    };
    let config = NetConfig { ca_files: vec![garbage], ..NetConfig::default() };
    assert!(matches!(new(config), Err(NetError::ParseCa { .. })));
    let config = NetConfig { ca_files: vec![directory.path().join("missing.pem")], ..NetConfig::default() };
    assert!(matches!(new(config), Err(NetError::ReadCa { .. })));
    for (name, address) in [("a.example", "nowhere"), ("a.example", ":1"), ("a.example", "h:0"), ("a.example", "::1:1")]
    {
        let addresses = [(name.to_owned(), address.to_owned())].into();
        let config = NetConfig { addresses, ..NetConfig::default() };
        assert!(matches!(new(config), Err(NetError::Address { .. })), "{address}");
    }
    let config = NetConfig { addresses: [("a b".to_owned(), "h:1".to_owned())].into(), ..NetConfig::default() };
    assert!(matches!(new(config), Err(NetError::ServerName { .. })));
}

//! One listener with TLS serves clients, other servers and keys together.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    sync::Arc,
};

use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, pki_types::ServerName};
use serde_json::json;

use crate::support::{Home, PATIENCE};

#[test]
fn one_tls_listener_serves_clients_servers_and_keys() {
    let home = Home::new();
    let made = rcgen::generate_simple_self_signed(vec!["matron.test".to_owned()]).unwrap();
    let (certificate, key) = (home.path().join("tls.crt"), home.path().join("tls.key"));
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    home.configure(json!({
        "listen": {"address": "127.0.0.1:0", "tls_certificate": certificate, "tls_key": key},
    }));
    let server = home.start();
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let config = Arc::new(config);
    for path in ["/_matrix/client/versions", "/_matrix/key/v2/server", "/_matrix/federation/v1/version", "/health"] {
        let name = ServerName::try_from("matron.test").unwrap();
        let connection = ClientConnection::new(Arc::clone(&config), name).unwrap();
        let stream = TcpStream::connect(&server.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut stream = StreamOwned::new(connection, stream);
        write!(stream, "GET {path} HTTP/1.1\r\nHost: matron.test\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        // The server may close without a TLS goodbye; what came before it is whole.
        let _ = stream.read_to_string(&mut answer);
        assert!(answer.starts_with("HTTP/1.1 200 "), "{path}: {answer}");
    }
}

//! Nothing that a server answers costs us more than we said.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::Full;
use matron_core::ports::{Federation as _, PeerError, http_method::Method};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use crate::world::{PUBLIC, World, ask, get, json, outbound};

#[tokio::test]
async fn a_body_over_the_bound_is_refused() {
    let world = World::new();
    let server =
        world.tls_server(&[PUBLIC], |_| async { http::Response::new(Full::new(Bytes::from(vec![b' '; 1025]))) }).await;
    world.serve(&format!("{PUBLIC}:8448"), &server);
    assert!(matches!(ask(&world.federation(), PUBLIC).await, Err(PeerError::TooLarge)));
}

/// A server that answers with these bytes, then keeps the connection open and silent.
async fn raw_server(answer: Vec<u8>) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let answer = Arc::new(answer);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = Arc::clone(&answer);
            tokio::spawn(async move {
                let mut buffer = [0; 1024];
                let _ = stream.read(&mut buffer).await;
                let _ = stream.write_all(&answer).await;
                while stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
            });
        }
    });
    address
}

fn to(address: std::net::SocketAddr, timeout: Duration) -> (World, matron_core::ports::OutboundRequest) {
    let world = World::new();
    let mut request = outbound(&format!("http://{address}/"), true);
    request.timeout = timeout;
    (world, request)
}

/// Real sockets, since the world's only know what the test wrote.
fn over_system_network(world: &World) -> matron_net::NetFederation {
    let name = ruma::ServerName::parse("us.example").unwrap();
    let network = Arc::new(matron_net::SystemNetwork::new());
    matron_net::NetFederation::with_network(world.config.clone(), name, World::key(), world.clock.clone(), network)
        .unwrap()
}

#[tokio::test]
async fn an_endless_chunked_body_is_cut_off() {
    let mut answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for _ in 0..64 {
        answer.extend_from_slice(b"40\r\n");
        answer.extend_from_slice(&[b'x'; 64]);
        answer.extend_from_slice(b"\r\n");
    }
    let (world, request) = to(raw_server(answer).await, Duration::from_secs(20));
    let result = over_system_network(&world).outbound(request).await;
    assert!(matches!(result, Err(PeerError::TooLarge)), "{result:?}");
}

#[tokio::test]
async fn large_answers_of_one_server_hold_so_much_and_no_more() {
    const LEN: usize = 8 * 1024 * 1024;
    let mut answer = format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {LEN}\r\n\r\n").into_bytes();
    answer.resize(answer.len() + LEN, b' ');
    let (mut world, mut request) = to(raw_server(answer.clone()).await, Duration::from_secs(60));
    request.max_bytes = LEN;
    // Half of each needs no room.
    world.config.max_answers_per_destination_mib = 8;
    let federation = over_system_network(&world);
    let mut held = Vec::new();
    for _ in 0..2 {
        held.push(federation.outbound(request.clone()).await.unwrap());
    }
    let result = federation.outbound(request.clone()).await;
    assert!(matches!(result, Err(PeerError::TooLarge)), "{:?}", result.map(|answer| answer.body.len()));
    // Others have room, and what was read gives back its own.
    let url = format!("http://{}/", raw_server(answer).await);
    let other = matron_core::ports::OutboundRequest { url, ..request.clone() };
    assert_eq!(federation.outbound(other).await.unwrap().body.len(), LEN);
    held.pop();
    assert_eq!(federation.outbound(request).await.unwrap().body.len(), LEN);
}

#[tokio::test]
async fn a_body_that_never_ends_times_out() {
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc".to_vec();
    let (world, request) = to(raw_server(answer).await, Duration::from_millis(300));
    let result = over_system_network(&world).outbound(request).await;
    assert!(matches!(result, Err(PeerError::Timeout)), "{result:?}");
}

#[tokio::test]
async fn a_server_that_never_answers_times_out() {
    let (world, request) = to(raw_server(Vec::new()).await, Duration::from_millis(300));
    let result = over_system_network(&world).outbound(request).await;
    assert!(matches!(result, Err(PeerError::Timeout)), "{result:?}");
}

#[tokio::test]
async fn an_answer_that_is_not_http_is_an_error() {
    for answer in ["SSH-2.0-OpenSSH_9.2\r\n", "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", "HTTP/1.1 9999 ?\r\n\r\n"]
    {
        let (world, request) = to(raw_server(answer.as_bytes().to_vec()).await, Duration::from_secs(20));
        let result = over_system_network(&world).outbound(request).await;
        assert!(matches!(result, Err(PeerError::Connect(_))), "{result:?}");
    }
}

#[tokio::test]
async fn a_refusal_carries_its_json_or_null() {
    let world = World::new();
    let server = world
        .tls_server(&[PUBLIC], |seen| async move {
            if seen.head.uri.query().is_some() {
                json(502, "<html>")
            } else {
                json(403, r#"{"errcode":"M_FORBIDDEN"}"#)
            }
        })
        .await;
    world.serve(&format!("{PUBLIC}:8448"), &server);
    let federation = world.federation();
    match ask(&federation, PUBLIC).await {
        Err(PeerError::Status { status: 403, body }) => assert_eq!(body["errcode"], "M_FORBIDDEN"),
        other => panic!("{other:?}"),
    }
    let mut request = get(PUBLIC);
    request.path_and_query.push_str("?a");
    match federation.request(request).await {
        Err(PeerError::Status { status: 502, body }) => assert!(body.is_null()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn transactions_wait_out_a_backoff_and_users_do_not() {
    let world = World::new();
    let federation = world.federation();
    let mut transaction = get(PUBLIC);
    transaction.method = Method::Put;
    transaction.path_and_query = "/_matrix/federation/v1/send/1".to_owned();
    transaction.body = Some(serde_json::json!({}));
    assert!(matches!(federation.request(transaction.clone()).await, Err(PeerError::Connect(_))));
    let Err(PeerError::Backoff { until_ms }) = federation.request(transaction.clone()).await else { panic!() };
    assert!(matches!(ask(&federation, PUBLIC).await, Err(PeerError::Connect(_))), "a person waits: tried anyway");

    let now_ms = matron_core::ports::Clock::now_ms(&*world.clock);
    assert!(until_ms > now_ms);
    let server = world.tls_server(&[PUBLIC], |_| async { json(200, "{}") }).await;
    world.serve(&format!("{PUBLIC}:8448"), &server);
    assert!(matches!(federation.request(transaction.clone()).await, Err(PeerError::Backoff { .. })));
    federation.heard_from(<&ruma::ServerName>::try_from(PUBLIC).unwrap());
    federation.request(transaction).await.unwrap();
}

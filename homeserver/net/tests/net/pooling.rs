//! Connections are kept, within bounds, and their death is not the request's.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use futures_util::future::join_all;
use matron_core::ports::{Federation as _, PeerError, http_method::Method};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    sync::Semaphore,
};

use crate::world::{PUBLIC, World, ask, json, outbound};

#[tokio::test]
async fn one_connection_serves_many_requests() {
    let world = World::new();
    let server = world.tls_server(&[PUBLIC], |_| async { json(200, "{}") }).await;
    world.serve(&format!("{PUBLIC}:8448"), &server);
    let federation = world.federation();
    for _ in 0..5 {
        ask(&federation, PUBLIC).await.unwrap();
    }
    assert_eq!(server.seen().last().unwrap().connection, 1);
}

#[tokio::test]
async fn no_more_connections_than_allowed_are_open_to_one_server() {
    let mut world = World::new();
    world.config.max_connections_per_destination = 2;
    let (inside, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let gate = Arc::new(Semaphore::new(0));
    let server = {
        let (inside, most, gate) = (Arc::clone(&inside), Arc::clone(&most), Arc::clone(&gate));
        world
            .tls_server(&[PUBLIC], move |_| {
                let (inside, most, gate) = (Arc::clone(&inside), Arc::clone(&most), Arc::clone(&gate));
                async move {
                    let now = inside.fetch_add(1, Ordering::SeqCst) + 1;
                    most.fetch_max(now, Ordering::SeqCst);
                    if now == 2 {
                        gate.add_permits(100);
                    }
                    gate.acquire().await.unwrap().forget();
                    inside.fetch_sub(1, Ordering::SeqCst);
                    json(200, "{}")
                }
            })
            .await
    };
    world.serve(&format!("{PUBLIC}:8448"), &server);
    let federation = world.federation();
    for result in join_all((0..10).map(|_| ask(&federation, PUBLIC))).await {
        result.unwrap();
    }
    assert_eq!(most.load(Ordering::SeqCst), 2);
    assert_eq!(server.seen().len(), 10);
}

/// A server that answers one request per connection and then hangs up without saying so beforehand.
async fn forgetful_server() -> (std::net::SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let answered = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&answered);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let counter = Arc::clone(&counter);
            tokio::spawn(async move {
                let mut buffer = vec![0; 4096];
                let _ = stream.read(&mut buffer).await;
                counter.fetch_add(1, Ordering::SeqCst);
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}").await;
                // Reads the next request, and hangs up on it.
                let _ = stream.read(&mut buffer).await;
            });
        }
    });
    (address, answered)
}

#[tokio::test]
async fn a_kept_connection_that_died_is_replaced_for_what_may_be_repeated() {
    let (address, answered) = forgetful_server().await;
    let world = World::new();
    let name = ruma::ServerName::parse("us.example").unwrap();
    let network = Arc::new(matron_net::SystemNetwork::new());
    let federation =
        matron_net::NetFederation::with_network(world.config.clone(), name, World::key(), world.clock.clone(), network)
            .unwrap();
    let mut request = outbound(&format!("http://{address}/"), true);
    request.method = Method::Put;
    federation.outbound(request.clone()).await.unwrap();
    federation.outbound(request.clone()).await.unwrap();
    assert_eq!(answered.load(Ordering::SeqCst), 2);

    request.method = Method::Post;
    let result = federation.outbound(request).await;
    assert!(matches!(result, Err(PeerError::Connect(_))), "a request that may have been acted on is not repeated");
}

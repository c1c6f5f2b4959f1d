//! Accepts connections and serves them: bounded in number and in time, plain or TLS, ended gracefully.

mod body;
mod connection;
mod forwarded;
mod resources;
mod stream;
mod tls;

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use axum::Router;
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
};
use tokio_util::task::TaskTracker;

use crate::{config::Listen, serve::stopped};

pub(crate) use resources::Caller;

/// Why an address cannot be served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ListenError {
    /// The address is taken, or not this machine's.
    #[error("cannot listen on {address}: {source}")]
    Bind { address: SocketAddr, source: std::io::Error },
    /// A certificate or key cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    ReadTls { path: PathBuf, source: std::io::Error },
    /// A file holds no certificate or no key.
    #[error("{} holds no {what} in PEM form", path.display())]
    NotPem { path: PathBuf, what: &'static str },
    /// The certificate and the key do not fit each other, or the TLS library refuses them.
    #[error("TLS on {address}: {source}")]
    Tls { address: SocketAddr, source: rustls::Error },
}

/// A listener whose certificate is read and whose router is made, but whose port is not bound yet.
pub(crate) struct Prepared {
    listen: Listen,
    tls: Option<tokio_rustls::TlsAcceptor>,
    served: resources::Served,
}

/// A bound listener.
pub(crate) struct Bound {
    prepared: Prepared,
    socket: TcpListener,
    /// The address with the port that the system chose, if 0 was asked.
    pub(crate) address: SocketAddr,
}

impl Prepared {
    /// Reads the certificate and narrows the router to the listener's resources.
    ///
    /// # Errors
    /// [`ListenError`] naming the file.
    pub(crate) fn new(listen: &Listen, router: Router) -> Result<Self, ListenError> {
        let tls = tls::acceptor(listen)?;
        Ok(Self { tls, served: resources::Served::new(router, &listen.resources), listen: listen.clone() })
    }

    /// Binds the port: from here on others take this server as ready.
    ///
    /// # Errors
    /// [`ListenError::Bind`].
    pub(crate) async fn bind(self) -> Result<Bound, ListenError> {
        let address = self.listen.address;
        let socket = TcpListener::bind(address).await.map_err(|source| ListenError::Bind { address, source })?;
        let address = socket.local_addr().map_err(|source| ListenError::Bind { address, source })?;
        Ok(Bound { prepared: self, socket, address })
    }
}

impl Bound {
    /// Serves until `stop` turns true; connections that are being answered go on in `connections`.
    pub(crate) async fn run(self, mut stop: watch::Receiver<bool>, connections: TaskTracker) {
        let Self { prepared, socket, address } = self;
        let limits = connection::Limits {
            header: Duration::from_millis(prepared.listen.header_timeout_ms),
            body: Duration::from_millis(prepared.listen.body_timeout_ms),
            trust_forwarded_for: prepared.listen.trust_forwarded_for,
        };
        let places = Arc::new(Semaphore::new(prepared.listen.max_connections));
        loop {
            let place = tokio::select! {
                () = stopped(&mut stop) => break,
                place = Arc::clone(&places).acquire_owned() => match place { Ok(place) => place, Err(_) => break },
            };
            let (stream, peer) = tokio::select! {
                () = stopped(&mut stop) => break,
                accepted = socket.accept() => match accepted {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        // Out of file descriptors, or the peer left already: neither ends the server.
                        tracing::warn!(%address, %error, "a connection could not be accepted");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        continue;
                    }
                },
            };
            let _ = stream.set_nodelay(true);
            let stream = stream::Patient::new(stream, limits.body);
            let (served, tls, stop) = (prepared.served.clone(), prepared.tls.clone(), stop.clone());
            connections.spawn(async move {
                let _place = place;
                match tls {
                    None => connection::serve(stream, peer, served, limits, stop).await,
                    Some(tls) => {
                        if let Ok(Ok(stream)) = tokio::time::timeout(limits.header, tls.accept(stream)).await {
                            connection::serve(stream, peer, served, limits, stop).await;
                        }
                    }
                }
            });
        }
    }
}

//! From a route to an encrypted stream: addresses, the guard, TCP, TLS.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use matron_core::ports::PeerError;
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::{Instant, sleep, timeout_at},
};
use tokio_rustls::TlsConnector;

use crate::{guard::AddressGuard, network::Network, plain, tls::TlsConfigs};

/// How many addresses of one place are tried.
const MAX_ADDRESSES: usize = 6;
/// How long one address gets before the next is tried beside it.
const HEAD_START: Duration = Duration::from_millis(250);

/// An address or a name that has some.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Host {
    /// An IP literal.
    Address(IpAddr),
    /// A DNS name.
    Name(String),
}

impl Host {
    /// The host of this text; an IPv6 literal may stand in brackets.
    pub(crate) fn parse(text: &str) -> Self {
        let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
        bare.parse().map_or_else(|_not_an_address| Self::Name(text.to_owned()), Self::Address)
    }

    /// The name that a certificate must carry.
    ///
    /// # Errors
    /// [`PeerError::Resolve`] when no certificate could.
    pub(crate) fn certificate_name(&self) -> Result<ServerName<'static>, PeerError> {
        match self {
            Self::Address(address) => Ok(ServerName::IpAddress((*address).into())),
            Self::Name(name) => ServerName::try_from(name.clone())
                .map_err(|_invalid| PeerError::Resolve("its name is not one that a certificate can carry".to_owned())),
        }
    }
}

/// Something to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Where.
    pub(crate) host: Host,
    /// On which port.
    pub(crate) port: u16,
}

/// How the other end proves who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Proof {
    /// A homeserver, by a certificate for this name.
    Homeserver(ServerName<'static>),
    /// Another service, by a certificate for this name.
    Service(ServerName<'static>),
    /// Not at all: plain HTTP to a configured service.
    None,
}

/// All that is needed to connect and to address a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    /// Where to connect, in order of preference; never empty.
    pub(crate) places: Vec<Place>,
    /// How the other end proves who it is.
    pub(crate) proof: Proof,
    /// The `Host` header.
    pub(crate) host_header: String,
    /// The operator named it: private addresses are fine.
    pub(crate) trusted: bool,
}

/// Anything that bytes flow through.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Opens streams, and is the only place that does.
#[derive(Clone, Debug)]
pub(crate) struct Dialer {
    /// DNS and TCP.
    pub(crate) network: Arc<dyn Network>,
    /// Which addresses may be reached.
    pub(crate) guard: Arc<AddressGuard>,
    /// Whose certificates are believed.
    pub(crate) tls: TlsConfigs,
    /// For DNS, TCP and TLS of one place together.
    pub(crate) connect_timeout: Duration,
}

impl Dialer {
    /// A stream to the first place of the route that answers, its certificate verified.
    ///
    /// # Errors
    /// [`PeerError::Resolve`] when there is no address that may be reached, [`PeerError::Connect`] when none of them
    /// answers properly.
    pub(crate) async fn dial(&self, route: &Route) -> Result<Box<dyn Stream>, PeerError> {
        let mut failure = PeerError::Resolve("it has no address".to_owned());
        for place in &route.places {
            match self.dial_place(route, place).await {
                Ok(stream) => return Ok(stream),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    async fn dial_place(&self, route: &Route, place: &Place) -> Result<Box<dyn Stream>, PeerError> {
        let end = Instant::now() + self.connect_timeout;
        let addresses = timeout_at(end, self.reachable(route, place)).await.unwrap_or_else(|_elapsed| {
            Err(match &place.host {
                Host::Name(name) => plain::dns(name, None),
                Host::Address(_) => plain::nobody(),
            })
        })?;
        let stream =
            timeout_at(end, self.connect_any(&addresses)).await.unwrap_or_else(|_elapsed| Err(plain::nobody()))?;
        let (name, config) = match &route.proof {
            Proof::Homeserver(name) => (name, &self.tls.federation),
            Proof::Service(name) => (name, &self.tls.services),
            Proof::None => return Ok(Box::new(stream)),
        };
        match timeout_at(end, TlsConnector::from(Arc::clone(config)).connect(name.clone(), stream)).await {
            Ok(Ok(stream)) => Ok(Box::new(stream)),
            Ok(Err(error)) => Err(plain::tls(&error)),
            Err(_elapsed) => Err(plain::mute()),
        }
    }

    /// The addresses of a place that may be reached, both families taking turns.
    async fn reachable(&self, route: &Route, place: &Place) -> Result<Vec<SocketAddr>, PeerError> {
        let found = match &place.host {
            Host::Address(address) => vec![*address],
            Host::Name(name) => {
                let found = self.network.addresses(name).await.map_err(|error| plain::dns(name, Some(&error)))?;
                if found.is_empty() {
                    return Err(plain::no_address(name));
                }
                found
            }
        };
        let mut refusal = None;
        let mut allowed = Vec::new();
        for address in found {
            if route.trusted {
                allowed.push(address);
                continue;
            }
            match self.guard.check(address) {
                Ok(address) => allowed.push(address),
                Err(refused) => refusal = Some(refused),
            }
        }
        if let (true, Some(refused)) = (allowed.is_empty(), refusal) {
            return Err(PeerError::Resolve(refused.to_string()));
        }
        let (v6, v4): (Vec<IpAddr>, Vec<IpAddr>) = allowed.into_iter().partition(IpAddr::is_ipv6);
        Ok(take_turns(v6, v4)
            .into_iter()
            .take(MAX_ADDRESSES)
            .map(|address| SocketAddr::new(address, place.port))
            .collect())
    }

    /// A stream to the first address that accepts.
    async fn connect_any(&self, addresses: &[SocketAddr]) -> Result<TcpStream, PeerError> {
        first_to_accept(addresses, |address| self.network.connect(address), || sleep(HEAD_START))
            .await
            .map_err(|error| plain::tcp(&error))
    }
}

/// What the first address that accepts gives. The next one is tried when one has failed, or when the last one that was
/// begun has had its head start.
///
/// # Errors
/// Why the last of them failed.
async fn first_to_accept<T, C, W>(
    addresses: &[SocketAddr],
    connect: impl Fn(SocketAddr) -> C,
    head_start: impl Fn() -> W,
) -> io::Result<T>
where
    C: Future<Output = io::Result<T>>,
    W: Future<Output = ()>,
{
    let mut waiting = addresses.iter();
    let mut attempts = FuturesUnordered::new();
    let mut failure = io::Error::from(io::ErrorKind::AddrNotAvailable);
    loop {
        let more = waiting.next().map(|address| attempts.push(connect(*address))).is_some();
        let ended = if more && waiting.len() > 0 {
            tokio::select! {
                biased;
                ended = attempts.next() => ended,
                () = head_start() => continue,
            }
        } else {
            attempts.next().await
        };
        match ended {
            Some(Ok(stream)) => return Ok(stream),
            Some(Err(error)) => failure = error,
            None => return Err(failure),
        }
    }
}

/// One of each in turn, the first list first.
fn take_turns(first: Vec<IpAddr>, second: Vec<IpAddr>) -> Vec<IpAddr> {
    let mut turns = Vec::with_capacity(first.len().saturating_add(second.len()));
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    loop {
        match (first.next(), second.next()) {
            (None, None) => return turns,
            (one, other) => turns.extend(one.into_iter().chain(other)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    fn addresses() -> Vec<SocketAddr> {
        ["[::1]:8448", "127.0.0.1:8448", "127.0.0.2:8448"].iter().map(|text| text.parse().unwrap()).collect()
    }

    /// IPv6 is refused, as on a machine whose name has an address of it and whose servers do not listen there.
    async fn connect(address: SocketAddr) -> io::Result<SocketAddr> {
        if address.is_ipv6() { Err(io::ErrorKind::ConnectionRefused.into()) } else { Ok(address) }
    }

    #[tokio::test]
    async fn an_address_that_refuses_does_not_hold_up_the_next() {
        let accepted = first_to_accept(&addresses(), connect, pending).await.unwrap();
        assert_eq!(accepted.to_string(), "127.0.0.1:8448");
    }

    #[tokio::test]
    async fn an_address_that_is_silent_holds_up_the_next_for_its_head_start_only() {
        let connect = |address: SocketAddr| async move {
            if address.is_ipv6() {
                pending::<()>().await;
            }
            Ok(address)
        };
        let accepted = first_to_accept(&addresses(), connect, || ready(())).await.unwrap();
        assert_eq!(accepted.to_string(), "127.0.0.1:8448");
    }

    #[tokio::test]
    async fn the_reason_of_the_last_address_that_failed_is_told() {
        let refusing = |_| async { Err::<(), _>(io::Error::from(io::ErrorKind::ConnectionRefused)) };
        let error = first_to_accept(&addresses(), refusing, pending).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        assert!(first_to_accept(&[], refusing, pending).await.is_err());
    }
}

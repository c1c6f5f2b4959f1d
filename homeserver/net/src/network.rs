//! DNS and TCP, as a port: the machine's own, or a test's.

use std::{
    fmt::Debug,
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use futures_util::future::BoxFuture;
use hickory_resolver::{
    ResolveError, Resolver, TokioResolver,
    config::{LookupIpStrategy, ResolverConfig},
    name_server::TokioConnectionProvider,
};
use tokio::net::TcpStream;

/// How many addresses or services of one name are looked at.
const MAX_ANSWERS: usize = 16;

/// One SRV record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Lower is tried first.
    pub priority: u16,
    /// Among equals, higher is tried first.
    pub weight: u16,
    /// The host.
    pub target: String,
    /// The port.
    pub port: u16,
}

/// Names to addresses, addresses to streams. Neither judges: the guard stands between them.
pub trait Network: Send + Sync + Debug {
    /// The addresses of a host name; empty if it has none.
    fn addresses<'a>(&'a self, host: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>>;

    /// The SRV records of a name, unordered; empty if it has none.
    fn services<'a>(&'a self, name: &'a str) -> BoxFuture<'a, io::Result<Vec<Service>>>;

    /// A TCP stream to exactly this address.
    fn connect(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<TcpStream>>;
}

/// The machine's resolver configuration and its TCP.
#[derive(Debug)]
pub struct SystemNetwork {
    resolver: TokioResolver,
}

impl SystemNetwork {
    /// A network by `/etc/resolv.conf` and `/etc/hosts`; without a readable one, names just do not resolve.
    #[must_use]
    pub fn new() -> Self {
        let mut builder = Resolver::builder_tokio().unwrap_or_else(|error| {
            tracing::warn!(%error, "no usable resolver configuration: only configured addresses will be reached");
            Resolver::builder_with_config(ResolverConfig::new(), TokioConnectionProvider::default())
        });
        let options = builder.options_mut();
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        options.cache_size = 4096;
        options.edns0 = true;
        options.timeout = Duration::from_secs(3);
        options.try_tcp_on_error = true;
        Self { resolver: builder.build() }
    }
}

impl Default for SystemNetwork {
    fn default() -> Self {
        Self::new()
    }
}

/// A trailing dot, so that no search domain of the machine is tried.
fn absolute(name: &str) -> String {
    if name.ends_with('.') { name.to_owned() } else { format!("{name}.") }
}

/// An answer without records is empty, not an error.
fn empty_if_none<T>(error: &ResolveError) -> io::Result<Vec<T>> {
    if error.is_no_records_found() { Ok(Vec::new()) } else { Err(io::Error::other(error.to_string())) }
}

impl Network for SystemNetwork {
    fn addresses<'a>(&'a self, host: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        Box::pin(async move {
            // A lone label is a name of the local network, which search domains may complete.
            let name = if host.contains('.') { absolute(host) } else { host.to_owned() };
            match self.resolver.lookup_ip(name).await {
                Ok(found) => Ok(found.iter().take(MAX_ANSWERS).collect()),
                Err(error) => empty_if_none(&error),
            }
        })
    }

    fn services<'a>(&'a self, name: &'a str) -> BoxFuture<'a, io::Result<Vec<Service>>> {
        Box::pin(async move {
            match self.resolver.srv_lookup(absolute(name)).await {
                Ok(found) => Ok(found
                    .iter()
                    .take(MAX_ANSWERS)
                    .map(|record| Service {
                        priority: record.priority(),
                        weight: record.weight(),
                        target: record.target().to_ascii().trim_end_matches('.').to_owned(),
                        port: record.port(),
                    })
                    .collect()),
                Err(error) => empty_if_none(&error),
            }
        })
    }

    fn connect(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<TcpStream>> {
        Box::pin(async move {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Ok(stream)
        })
    }
}

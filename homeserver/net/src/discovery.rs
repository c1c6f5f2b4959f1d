//! From a server name to a route, step by step as the specification has it.
//!
//! Spec: <https://spec.matrix.org/v1.19/server-server-api/#resolving-server-names>.

use std::{collections::BTreeMap, num::NonZeroUsize, sync::Arc};

use lru::LruCache;
use matron_core::ports::{Clock, PeerError};
use parking_lot::Mutex;
use ruma::{OwnedServerName, ServerName};

use crate::{
    config::{NetConfig, NetError},
    dial::{Host, Place, Proof, Route},
    exchange::Exchanger,
    network::Service,
    well_known::{WellKnown, may_delegate},
};

const DEFAULT_PORT: u16 = 8448;
const MAX_ROUTES: NonZeroUsize = NonZeroUsize::MIN.saturating_add(4095);
/// How long a route is reused before DNS is asked for services again, ms.
const ROUTE_LIFETIME_MS: u64 = 5 * 60_000;

/// Finds servers, and remembers where they were.
#[derive(Debug)]
pub(crate) struct Discovery {
    configured: BTreeMap<OwnedServerName, Place>,
    well_known: WellKnown,
    clock: Arc<dyn Clock>,
    routes: Mutex<LruCache<OwnedServerName, (Route, u64)>>,
}

impl Discovery {
    /// A discovery that knows the configured addresses.
    ///
    /// # Errors
    /// [`NetError::ServerName`] and [`NetError::Address`] for entries of `addresses` that make no sense.
    pub(crate) fn new(config: &NetConfig, clock: Arc<dyn Clock>) -> Result<Self, NetError> {
        let mut configured = BTreeMap::new();
        for (name, address) in &config.addresses {
            let server = ServerName::parse(name).map_err(|_invalid| NetError::ServerName { name: name.clone() })?;
            let place = parse_place(address)
                .ok_or_else(|| NetError::Address { name: name.clone(), address: address.clone() })?;
            configured.insert(server, place);
        }
        Ok(Self {
            configured,
            well_known: WellKnown::new(Arc::clone(&clock)),
            clock,
            routes: Mutex::new(LruCache::new(MAX_ROUTES)),
        })
    }

    /// How to reach this server.
    ///
    /// # Errors
    /// [`PeerError::Resolve`].
    pub(crate) async fn find_route(&self, exchanger: &Exchanger, server: &ServerName) -> Result<Route, PeerError> {
        if let Some(place) = self.configured.get(server) {
            let host = Host::parse(server.host());
            return Ok(Route { trusted: true, ..route(vec![place.clone()], &host, server.as_str())? });
        }
        if let Some(route) = direct(server)? {
            return Ok(route);
        }
        let now_ms = self.clock.now_ms();
        if let Some((route, expires_ms)) = self.routes.lock().get(server)
            && *expires_ms > now_ms
        {
            return Ok(route.clone());
        }
        let route = self.discover(exchanger, server).await?;
        self.routes.lock().put(server.to_owned(), (route.clone(), now_ms.saturating_add(ROUTE_LIFETIME_MS)));
        Ok(route)
    }

    /// Forgets the route of a server that could not be reached by it.
    pub(crate) fn forget(&self, server: &ServerName) {
        if self.routes.lock().pop(server).is_some() && may_delegate(server) {
            self.well_known.forget(server.host());
        }
    }

    /// What the configuration says of this server.
    pub(crate) fn configured_place(&self, server: &ServerName) -> Option<&Place> {
        self.configured.get(server)
    }

    /// Steps 3 to 6.
    async fn discover(&self, exchanger: &Exchanger, server: &ServerName) -> Result<Route, PeerError> {
        let delegated = self.well_known.fetch_delegation(exchanger, server.host()).await;
        let server = delegated.as_deref().unwrap_or(server);
        match direct(server)? {
            Some(route) => Ok(route),
            None => by_service(exchanger, server.host()).await,
        }
    }
}

/// Steps 1 and 2, and 3.1 and 3.2: an IP literal, or an explicit port.
pub(crate) fn direct(server: &ServerName) -> Result<Option<Route>, PeerError> {
    let host = Host::parse(server.host());
    let port = match (&host, server.port()) {
        (Host::Name(_), None) => return Ok(None),
        (_, port) => port.unwrap_or(DEFAULT_PORT),
    };
    route(vec![Place { host: host.clone(), port }], &host, server.as_str()).map(Some)
}

/// Steps 4 to 6, and 3.3 to 3.5: SRV records, else port 8448.
pub(crate) async fn by_service(exchanger: &Exchanger, host: &str) -> Result<Route, PeerError> {
    let mut places = Vec::new();
    // SPEC: v1.8 for `matrix-fed`; `matrix` is deprecated.
    for service in ["_matrix-fed._tcp", "_matrix._tcp"] {
        places = match exchanger.dialer.network.services(&format!("{service}.{host}")).await {
            Ok(services) => in_order(services),
            Err(error) => {
                tracing::debug!(peer.name = host, %error, "no answer to a question for SRV records");
                Vec::new()
            }
        };
        if !places.is_empty() {
            break;
        }
    }
    if places.is_empty() {
        places.push(Place { host: Host::parse(host), port: DEFAULT_PORT });
    }
    route(places, &Host::parse(host), host)
}

/// Lower priority first, then higher weight; a target of `.` means that there is no service.
fn in_order(mut services: Vec<Service>) -> Vec<Place> {
    services.sort_by_key(|service| (service.priority, u16::MAX.saturating_sub(service.weight)));
    services
        .into_iter()
        .filter(|service| !service.target.is_empty() && service.target != "." && service.port != 0)
        .take(4)
        .map(|service| Place { host: Host::Name(service.target), port: service.port })
        .collect()
}

fn route(places: Vec<Place>, certified: &Host, host_header: &str) -> Result<Route, PeerError> {
    Ok(Route {
        places,
        proof: Proof::Homeserver(certified.certificate_name()?),
        host_header: host_header.to_owned(),
        trusted: false,
    })
}

/// `ip:port`, `[ipv6]:port` or `host:port`.
fn parse_place(address: &str) -> Option<Place> {
    let (host, port) = address.rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port != 0)?;
    let bracketed = host.starts_with('[');
    match Host::parse(host) {
        // Without brackets, nobody knows where an IPv6 address ends and its port begins.
        Host::Address(address) if address.is_ipv6() != bracketed => None,
        Host::Name(name) if name.is_empty() || name.contains([':', '[', ']', '/']) => None,
        host => Some(Place { host, port }),
    }
}

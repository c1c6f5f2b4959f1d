//! From a URL to a route.

use http::uri::PathAndQuery;
use matron_core::ports::PeerError;
use url::{Host as UrlHost, Position, Url};

use crate::dial::{Host, Place, Proof, Route};

/// Who the URL leads to, as far as trust goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trust {
    /// A homeserver's web server: HTTPS, always verified, public addresses only.
    Homeserver,
    /// A service that a user or a peer named: HTTPS, public addresses only.
    Named,
    /// A service of the operator's configuration: plain HTTP and private addresses too.
    Configured,
}

/// The pool key, the route and the request target of this URL.
///
/// # Errors
/// [`PeerError::Resolve`] when the URL is not one, or not one that this trust allows.
pub(crate) fn target_of(url: &Url, trust: Trust) -> Result<(String, Route, PathAndQuery), PeerError> {
    let refused = |why: &str| PeerError::Resolve(why.to_owned());
    let plain = match url.scheme() {
        "https" => false,
        "http" if trust == Trust::Configured => true,
        _ => return Err(refused("its URL is not https")),
    };
    if !url.username().is_empty() || url.password().is_some() {
        return Err(refused("its URL holds a user name or password"));
    }
    let host = match url.host() {
        Some(UrlHost::Domain(name)) => Host::Name(name.to_owned()),
        Some(UrlHost::Ipv4(address)) => Host::Address(address.into()),
        Some(UrlHost::Ipv6(address)) => Host::Address(address.into()),
        None => return Err(refused("its URL names no host")),
    };
    let port = url.port_or_known_default().unwrap_or(if plain { 80 } else { 443 });
    let authority = &url[Position::BeforeHost..Position::AfterPort];
    let target = &url[Position::BeforePath..Position::AfterQuery];
    let target = PathAndQuery::try_from(target).map_err(|_invalid| refused("its URL has no proper path"))?;
    let proof = match (plain, trust) {
        (true, _) => Proof::None,
        (false, Trust::Homeserver) => Proof::Homeserver(host.certificate_name()?),
        (false, _) => Proof::Service(host.certificate_name()?),
    };
    let route = Route {
        places: vec![Place { host, port }],
        proof,
        host_header: authority.to_owned(),
        trusted: trust == Trust::Configured,
    };
    Ok((format!("{trust:?} {}://{authority}", url.scheme()), route, target))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(url: &str, trust: Trust) -> Result<(String, Route, PathAndQuery), PeerError> {
        target_of(&Url::parse(url).unwrap(), trust)
    }

    #[test]
    fn a_url_becomes_host_header_place_and_path() {
        let (_, route, path) = target("https://push.example:8443/_matrix/push?a=%20b#c", Trust::Named).unwrap();
        assert_eq!(route.host_header, "push.example:8443");
        assert_eq!(route.places, [Place { host: Host::Name("push.example".to_owned()), port: 8443 }]);
        assert_eq!(path, "/_matrix/push?a=%20b");
        let (_, route, path) = target("https://[2606:4700::1]", Trust::Named).unwrap();
        assert_eq!(route.host_header, "[2606:4700::1]");
        assert_eq!(path, "/");
    }

    #[test]
    fn only_a_configured_service_may_be_plain_http() {
        assert!(target("http://a.example/", Trust::Named).is_err());
        assert!(target("http://a.example/", Trust::Homeserver).is_err());
        assert!(target("file:///etc/passwd", Trust::Configured).is_err());
        assert!(target("https://user:secret@a.example/", Trust::Configured).is_err());
        let (_, route, _) = target("http://localhost:9000/", Trust::Configured).unwrap();
        assert!(route.trusted && route.proof == Proof::None);
    }

    #[test]
    fn odd_spellings_of_an_address_are_still_addresses() {
        for url in ["https://0x7f.1/", "https://2130706433/", "https://0177.0.0.1/"] {
            let (_, route, _) = target(url, Trust::Named).unwrap();
            let [Place { host: Host::Address(address), .. }] = route.places.as_slice() else { panic!("{url}") };
            assert_eq!(address.to_string(), "127.0.0.1");
        }
    }
}

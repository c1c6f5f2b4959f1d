//! Whose request it is, when a proxy stands before the server.

use std::net::IpAddr;

use http::Request;

/// The caller's address: the last of `X-Forwarded-For` if the proxy is trusted to have written it, else the peer's.
pub(super) fn client_address<B>(request: &Request<B>, peer: IpAddr, trusted: bool) -> IpAddr {
    if !trusted {
        return peer;
    }
    request
        .headers()
        .get_all("x-forwarded-for")
        .iter()
        .next_back()
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.rsplit(',').next())
        .and_then(|address| address.trim().parse().ok())
        .unwrap_or(peer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_trusted_proxy_is_believed_and_only_its_own_entry() {
        let peer: IpAddr = "10.0.0.1".parse().unwrap();
        let request = Request::builder().header("x-forwarded-for", "6.6.6.6, 192.0.2.7").body(()).unwrap();
        assert_eq!(client_address(&request, peer, false), peer);
        assert_eq!(client_address(&request, peer, true), "192.0.2.7".parse::<IpAddr>().unwrap());
        let request = Request::builder().header("x-forwarded-for", "nonsense").body(()).unwrap();
        assert_eq!(client_address(&request, peer, true), peer);
    }
}

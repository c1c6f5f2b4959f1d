//! Where a client may be reached again: strict, since it is all that proves who a client is.
//!
//! SPEC: v1.19 Client-Server API, "Redirect URI validation".

use url::{Host, Url};

/// Why a URI cannot be a redirect URI of this client, or `Ok`.
pub(super) fn check(redirect: &str, client_uri: &Url, native: bool, insecure: bool) -> Result<(), &'static str> {
    let url = Url::parse(redirect).map_err(|_| "a redirect URI is no absolute URI")?;
    if url.fragment().is_some() || redirect.contains('#') {
        return Err("a redirect URI has a fragment");
    }
    match url.scheme() {
        "https" => check_common_base(&url, client_uri),
        "http" if native && is_loopback(&url) => {
            if url.port().is_some() && !insecure {
                return Err("a loopback redirect URI names no port: any port is accepted");
            }
            no_credentials(&url)
        }
        "http" if insecure => check_common_base(&url, client_uri),
        "http" => Err("a redirect URI of a web client has the scheme https"),
        scheme if native => {
            let base = reversed_host(client_uri).ok_or("the client URI has no host name")?;
            let belongs = scheme == base || scheme.strip_prefix(&base).is_some_and(|rest| rest.starts_with('.'));
            if !belongs {
                return Err("a private-use scheme begins with the client URI's host in reverse order");
            }
            if url.has_authority() {
                return Err("a redirect URI with a private-use scheme has no authority");
            }
            Ok(())
        }
        _ => Err("a redirect URI of a web client has the scheme https"),
    }
}

/// Whether `given` is one of those registered; on the loopback interface any port will do.
pub(super) fn matches(registered: &[String], given: &str) -> bool {
    if registered.iter().any(|known| known == given) {
        return true;
    }
    let Ok(mut url) = Url::parse(given) else { return false };
    if url.scheme() != "http" || !is_loopback(&url) || url.fragment().is_some() || url.set_port(None).is_err() {
        return false;
    }
    registered.iter().filter_map(|known| Url::parse(known).ok()).any(|known| known == url)
}

/// Passes for a URI on the client's own host, or on one below it.
pub(super) fn check_common_base(url: &Url, client_uri: &Url) -> Result<(), &'static str> {
    no_credentials(url)?;
    let (Some(host), Some(base)) = (url.host(), client_uri.host()) else { return Err("a URI has no host") };
    let below = match (&host, &base) {
        (Host::Domain(host), Host::Domain(base)) => {
            host == base || host.strip_suffix(base).is_some_and(|rest| rest.ends_with('.') && !rest.starts_with('.'))
        }
        (host, base) => host == base,
    };
    if below { Ok(()) } else { Err("a URI lies outside the host of the client URI") }
}

fn no_credentials(url: &Url) -> Result<(), &'static str> {
    if url.username().is_empty() && url.password().is_none() { Ok(()) } else { Err("a URI holds a user or password") }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address == std::net::Ipv4Addr::LOCALHOST,
        Some(Host::Ipv6(address)) => address == std::net::Ipv6Addr::LOCALHOST,
        None => false,
    }
}

fn reversed_host(client_uri: &Url) -> Option<String> {
    let Some(Host::Domain(name)) = client_uri.host() else { return None };
    let mut labels: Vec<&str> = name.split('.').filter(|label| !label.is_empty()).collect();
    labels.reverse();
    Some(labels.join("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn try_out(redirect: &str, native: bool) -> bool {
        check(redirect, &Url::parse("https://example.com/").unwrap(), native, false).is_ok()
    }

    #[test]
    fn the_specification_s_examples_of_web_clients_are_judged_as_it_says() {
        for good in [
            "https://example.com/callback",
            "https://app.example.com/callback",
            "https://example.com:5173/?query=value",
        ] {
            assert!(try_out(good, false), "{good}");
        }
        for bad in [
            "https://example.com/callback#fragment",
            "https://example.com/callback#",
            "http://example.com/callback",
            "http://localhost/",
            "https://notexample.com/",
            "https://example.com.evil.org/",
            "https://user@example.com/",
            "https://evil.org/?https://example.com/",
            "javascript:alert(1)",
            "com.example.app:/callback",
            "/callback",
        ] {
            assert!(!try_out(bad, false), "{bad}");
        }
    }

    #[test]
    fn the_specification_s_examples_of_native_clients_are_judged_as_it_says() {
        for good in [
            "com.example.app:/callback",
            "com.example:/",
            "com.example:callback",
            "http://localhost/callback",
            "http://127.0.0.1/callback",
            "http://[::1]/callback",
            "https://app.example.com/callback",
        ] {
            assert!(try_out(good, true), "{good}");
        }
        for bad in [
            "example:/callback",
            "com.example.app://callback",
            "com.examples:/callback",
            "https://localhost/callback",
            "http://localhost:1234/callback",
            "http://localhost.evil.org/callback",
            "javascript:alert(1)",
            "data:text/html,x",
        ] {
            assert!(!try_out(bad, true), "{bad}");
        }
    }

    #[test]
    fn a_redirect_uri_is_matched_exactly_but_for_the_port_on_loopback() {
        let known = ["https://example.com/callback".to_owned(), "http://127.0.0.1/callback".to_owned()];
        assert!(matches(&known, "https://example.com/callback"));
        assert!(matches(&known, "http://127.0.0.1:49152/callback"));
        for other in [
            "https://example.com/callback/",
            "https://example.com/callback?x=1",
            "https://example.com:444/callback",
            "http://127.0.0.1:49152/other",
            "http://localhost:49152/callback",
            "http://127.0.0.1:49152/callback#x",
        ] {
            assert!(!matches(&known, other), "{other}");
        }
    }
}

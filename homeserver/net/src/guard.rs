//! Which addresses may be connected to: the guard against server-side request forgery.
//!
//! INVARIANT: the guard judges the address that is given to `connect`, after DNS, so that a name whose answer
//! changes between check and use gains nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::cidr::Cidr;

/// Refuses every address that is not plainly on the public internet, unless the operator allows it.
#[derive(Clone, Debug, Default)]
pub struct AddressGuard {
    allowed: Vec<Cidr>,
}

/// The address is private, or otherwise not one of the public internet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("its address is not a public one and not in allow_ip_ranges")]
pub struct Refused;

impl AddressGuard {
    /// A guard that lets public addresses and these ranges pass.
    #[must_use]
    pub fn new(allowed: Vec<Cidr>) -> Self {
        Self { allowed }
    }

    /// The address to connect to: the given one, or the IPv4 address that it wraps.
    ///
    /// # Errors
    /// [`Refused`] for every address that is neither public nor allowed.
    pub fn check(&self, address: IpAddr) -> Result<IpAddr, Refused> {
        let address = address.to_canonical();
        if self.allowed.iter().any(|range| range.contains(address)) || is_public(address) {
            Ok(address)
        } else {
            Err(Refused)
        }
    }
}

/// Whether an address is one of the public internet.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

/// The IANA IPv4 special-purpose registry, all that is not globally reachable.
fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !matches!(
        (a, b, c),
        (0 | 10 | 127, ..)
            | (100, 64..=127, _)
            | (169, 254, _)
            | (172, 16..=31, _)
            | (192, 0, 0 | 2)
            | (192, 88, 99)
            | (192, 168, _)
            | (198, 18 | 19, _)
            | (198, 51, 100)
            | (203, 0, 113)
            | (224..=255, ..)
    )
}

/// The IANA IPv6 special-purpose registry; only 2000::/3 is public, and tunnels are judged by what they wrap.
fn is_public_v6(address: Ipv6Addr) -> bool {
    match address.segments() {
        // NAT64: the network translates it to the IPv4 address in its tail.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => is_public_v4(v4_of(high, low)),
        // 6to4.
        [0x2002, high, low, ..] => is_public_v4(v4_of(high, low)),
        // 2001::/23 (Teredo, ORCHID and others), documentation.
        [0x2001, 0..=0x01ff, ..] | [0x2001, 0x0db8, ..] | [0x3fff, 0..=0x0fff, ..] => false,
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

fn v4_of(high: u16, low: u16) -> Ipv4Addr {
    Ipv4Addr::from((u32::from(high) << 16) | u32::from(low))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(address: &str) -> Result<IpAddr, Refused> {
        AddressGuard::default().check(address.parse().unwrap())
    }

    #[test]
    fn every_kind_of_private_address_is_refused() {
        for address in [
            "0.0.0.0",
            "0.1.2.3",
            "10.1.2.3",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.255",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:169.254.169.254",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b::a00:1",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:1ff::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "2002:c0a8:101::1",
            "3fff::1",
            "5f00::1",
            "fc00::1",
            "fd12:3456::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert_eq!(check(address), Err(Refused), "{address}");
        }
    }

    #[test]
    fn public_addresses_pass_and_wrapped_ones_are_unwrapped() {
        for address in ["8.8.8.8", "100.63.0.1", "172.32.0.1", "198.20.0.1", "2606:4700::1111", "2a00:1450::1"] {
            assert_eq!(check(address).unwrap().to_string(), address);
        }
        assert_eq!(check("::ffff:8.8.8.8").unwrap().to_string(), "8.8.8.8");
        assert!(check("64:ff9b::808:808").is_ok());
    }

    #[test]
    fn a_range_that_the_operator_names_passes_also_when_wrapped() {
        let guard = AddressGuard::new(vec!["127.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()]);
        assert!(guard.check("127.0.0.1".parse().unwrap()).is_ok());
        assert_eq!(guard.check("::ffff:127.0.0.1".parse().unwrap()).unwrap().to_string(), "127.0.0.1");
        assert!(guard.check("fd00::1".parse().unwrap()).is_ok());
        assert!(guard.check("10.0.0.1".parse().unwrap()).is_err());
        assert!(guard.check("::1".parse().unwrap()).is_err());
    }
}

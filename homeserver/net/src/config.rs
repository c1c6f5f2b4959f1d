//! What an operator may choose about outgoing connections.

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::cidr::Cidr;

/// Choices about outgoing connections; every field has a default that is safe on a hospital's network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NetConfig {
    /// Where to reach servers, by server name: `ip:port`, `[ipv6]:port` or `host:port`. Such a server is not looked
    /// up, and may be at a private address; its certificate must still be for its own name.
    pub addresses: BTreeMap<String, String>,
    /// PEM files with extra root certificates, trusted for every outgoing connection beside the system's.
    pub ca_files: Vec<PathBuf>,
    /// Address ranges that may be reached although they are private, such as `10.20.0.0/16`.
    pub allow_ip_ranges: Vec<Cidr>,
    /// How long DNS, TCP and TLS together may take, ms.
    pub connect_timeout_ms: u64,
    /// The longest that any request may take, whatever its caller asks, ms.
    pub request_timeout_ms: u64,
    /// How many connections may be open to one destination.
    pub max_connections_per_destination: usize,
    /// How many connections may be open in all.
    pub max_connections: usize,
    /// How much large answers hold together while they are read, MiB beside the first 4 of each: what comes beyond is refused.
    pub max_answers_mib: usize,
    /// How much of that the answers of one destination hold, MiB.
    pub max_answers_per_destination_mib: usize,
    /// How many idle connections are kept per destination.
    pub max_idle_per_destination: usize,
    /// How long an idle connection is kept, ms.
    pub idle_timeout_ms: u64,
    /// Do not verify the certificates of services other than homeservers. For test suites only.
    pub insecure_skip_tls_verify: bool,
}

impl Default for NetConfig {
    fn default() -> Self {
        Self {
            addresses: BTreeMap::new(),
            ca_files: Vec::new(),
            allow_ip_ranges: Vec::new(),
            connect_timeout_ms: 10_000,
            request_timeout_ms: 120_000,
            max_connections_per_destination: 32,
            max_connections: 1024,
            max_answers_mib: 1024,
            max_answers_per_destination_mib: 256,
            max_idle_per_destination: 4,
            idle_timeout_ms: 60_000,
            insecure_skip_tls_verify: false,
        }
    }
}

/// Why outgoing connections cannot be set up. Each names the setting to change.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// A file of `ca_files` cannot be read.
    #[error("ca_files: cannot read {path}")]
    ReadCa {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file of `ca_files` holds no certificate, or something that is none.
    #[error("ca_files: {path} is not a PEM file of certificates")]
    ParseCa {
        /// The file.
        path: PathBuf,
    },
    /// A key of `addresses` is not a server name.
    #[error("addresses: `{name}` is not a server name")]
    ServerName {
        /// The key.
        name: String,
    },
    /// A value of `addresses` is not `host:port`.
    #[error("addresses: `{address}` of {name} is not `ip:port` or `host:port`")]
    Address {
        /// The server name.
        name: String,
        /// The value.
        address: String,
    },
    /// The TLS library refused its own configuration.
    #[error("TLS cannot be set up")]
    Tls(#[from] rustls::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_configured_means_the_defaults() {
        assert_eq!(serde_json::from_str::<NetConfig>("{}").unwrap(), NetConfig::default());
    }

    #[test]
    fn an_unknown_setting_is_an_error() {
        let error = serde_json::from_str::<NetConfig>(r#"{"adresses": {}}"#).unwrap_err().to_string();
        assert!(error.contains("adresses"), "{error}");
    }
}

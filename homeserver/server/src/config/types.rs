//! The sections of the configuration that belong to the binary; the use cases' own are `matron_core::Settings`.

use std::{net::SocketAddr, path::PathBuf};

use serde::{Deserialize, Serialize};

/// Where this server lives, what it listens to and where it keeps things.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Server {
    pub(crate) server_name: String,
    pub(crate) data_dir: PathBuf,
    pub(crate) signing_key: Option<PathBuf>,
    pub(crate) appservices: Vec<PathBuf>,
    pub(crate) appservice_config: Option<PathBuf>,
    pub(crate) stop_timeout_ms: u64,
    pub(crate) storage: Storage,
    pub(crate) master_key: MasterKey,
    pub(crate) listen: Listen,
    pub(crate) listeners: Vec<Listen>,
    pub(crate) logging: Logging,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            server_name: "localhost".to_owned(),
            data_dir: PathBuf::from("./matron-data"),
            signing_key: None,
            appservices: Vec::new(),
            appservice_config: None,
            stop_timeout_ms: 10_000,
            storage: Storage::default(),
            master_key: MasterKey::default(),
            listen: Listen::default(),
            listeners: Vec::new(),
            logging: Logging::default(),
        }
    }
}

impl Server {
    /// The file of the signing key, chosen or default.
    pub(crate) fn signing_key_path(&self) -> PathBuf {
        self.signing_key.clone().unwrap_or_else(|| self.data_dir.join("signing.key"))
    }

    /// The file of the master key, chosen or default; unused when a command prints it.
    pub(crate) fn master_key_path(&self) -> PathBuf {
        self.master_key.file.clone().unwrap_or_else(|| self.data_dir.join("master.key"))
    }

    /// Every listener, the main one first.
    pub(crate) fn all_listeners(&self) -> impl Iterator<Item = &Listen> {
        std::iter::once(&self.listen).chain(&self.listeners)
    }
}

/// Which engine keeps the data.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Storage {
    pub(crate) engine: Engine,
}

/// The engines of `matron-storage`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Engine {
    Memory,
    #[default]
    Sqlite,
    Sled,
}

impl Engine {
    /// The name as it is written in the configuration.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Sqlite => "sqlite",
            Self::Sled => "sled",
        }
    }
}

/// Where the key that wraps all data keys comes from: a file of mode 0600, or a command that prints it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct MasterKey {
    pub(crate) file: Option<PathBuf>,
    pub(crate) command: Option<String>,
}

/// One address to listen on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Listen {
    pub(crate) address: SocketAddr,
    pub(crate) tls_certificate: Option<PathBuf>,
    pub(crate) tls_key: Option<PathBuf>,
    pub(crate) resources: Vec<Resource>,
    pub(crate) trust_forwarded_for: bool,
    pub(crate) max_connections: usize,
    pub(crate) header_timeout_ms: u64,
    pub(crate) body_timeout_ms: u64,
}

impl Default for Listen {
    fn default() -> Self {
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], 8008)),
            tls_certificate: None,
            tls_key: None,
            resources: Vec::new(),
            trust_forwarded_for: false,
            max_connections: 10_000,
            header_timeout_ms: 15_000,
            body_timeout_ms: 30_000,
        }
    }
}

/// What a listener serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Resource {
    /// The Client-Server API, media included.
    Client,
    /// The Server-Server API, and policy signing for other servers.
    Federation,
    /// The published signing keys.
    Key,
    /// The media paths alone.
    Media,
    /// `/health`.
    Health,
    /// `/metrics`.
    Metrics,
}

/// What is written about what happens, and how.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Logging {
    pub(crate) level: String,
    pub(crate) format: LogFormat,
}

impl Default for Logging {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: LogFormat::Text }
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    #[default]
    Text,
    Json,
}

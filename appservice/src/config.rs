//! The application service's configuration.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Why a configuration is refused.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("the configuration cannot be read")]
    Read(#[from] std::io::Error),
    /// Malformed, or with an unknown key, which the message names.
    #[error("{0}")]
    Toml(#[from] toml::de::Error),
    /// A name that cannot be a user's.
    #[error("`{0}` must consist of a-z, 0-9, '-', '_' and '.', and start with a letter or digit")]
    Name(&'static str),
    /// Two feeds with one name.
    #[error("lab_feeds has two feeds of the same name")]
    DuplicateFeed,
    /// A register without keys to verify it, or keys that are none.
    #[error("`register_keys` must hold at least one ed25519 key in base64 where `register_file` is given")]
    RegisterKeys,
    /// A limit of nothing.
    #[error("`{0}` must be greater than zero")]
    Zero(&'static str),
}

/// Everything that the application service must be told.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where the homeserver answers clients: `http://…` or `https://…`.
    pub homeserver_url: String,
    /// The part of user ids after the colon.
    pub server_name: String,
    /// PEM file with further certificate authorities for `homeserver_url`.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// Where the homeserver's transactions arrive.
    #[serde(default = "default_listen")]
    pub listen: SocketAddr,
    /// Where admin calls arrive; none without it.
    #[serde(default)]
    pub admin_listen: Option<SocketAddr>,
    /// Sealed state: device keys, sessions, spool.
    pub data_dir: PathBuf,
    /// The registration file that the homeserver has too.
    pub registration: PathBuf,
    /// Localpart of the governance bot, in the registration's namespace; the registration's sender without it. On
    /// homeservers that do not let the sender sync (Synapse) it must be another user.
    #[serde(default)]
    pub bot_localpart: Option<String>,
    /// The signed federation register: bounds clinical rooms by the servers of their organisations.
    #[serde(default)]
    pub register_file: Option<PathBuf>,
    /// Keys that may have signed the register, ed25519 in base64.
    #[serde(default)]
    pub register_keys: Vec<String>,
    /// Clinical rooms name the policy server that the register gives our organisation (`m.room.policy`).
    #[serde(default)]
    pub policy_server: bool,
    /// Server names by organisation code, where there is no register.
    #[serde(default)]
    pub organisations: BTreeMap<String, Vec<String>>,
    /// The bot's credential (JSON), where the homeserver does not put it into member events itself.
    #[serde(default)]
    pub credential_file: Option<PathBuf>,
    /// How often the homeserver is asked what has expired, in milliseconds.
    #[serde(default = "default_retention_poll_ms")]
    pub retention_poll_ms: u64,
    /// How many expired events are asked for at once.
    #[serde(default = "default_retention_batch")]
    pub retention_batch: u32,
    /// Laboratory feeds.
    #[serde(default)]
    pub lab_feeds: Vec<LabFeedConfig>,
}

/// One laboratory feed: an MLLP listener and the user `@lab-<name>`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LabFeedConfig {
    /// Its name, part of its user id.
    pub name: String,
    /// Where it listens for MLLP.
    pub listen: SocketAddr,
    /// Its user's display name.
    #[serde(default)]
    pub display_name: Option<String>,
    /// The room of messages that no route takes.
    #[serde(default)]
    pub room: Option<String>,
    /// Rooms by facility.
    #[serde(default)]
    pub routes: Vec<LabRoute>,
    /// Its credential (JSON), where the homeserver does not put it into member events itself.
    #[serde(default)]
    pub credential_file: Option<PathBuf>,
    /// Largest message, in bytes.
    #[serde(default = "default_max_message_bytes")]
    pub max_message_bytes: usize,
    /// Most messages that wait for the homeserver.
    #[serde(default = "default_max_spooled")]
    pub max_spooled: usize,
    /// Most connections at once.
    #[serde(default = "default_max_connections")]
    pub max_connections: usize,
}

/// The room of one facility.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LabRoute {
    /// MSH-4, the sending facility, or MSH-6, the receiving one.
    pub facility: String,
    /// The room's id.
    pub room: String,
}

fn default_listen() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 8010))
}
fn default_retention_poll_ms() -> u64 {
    5_000
}
fn default_retention_batch() -> u32 {
    100
}
fn default_max_message_bytes() -> usize {
    1024 * 1024
}
fn default_max_spooled() -> usize {
    10_000
}
fn default_max_connections() -> usize {
    32
}

impl Config {
    /// Reads and checks a TOML file.
    ///
    /// # Errors
    /// [`ConfigError`]; an unknown key is named.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(&std::fs::read_to_string(path)?)?;
        config.check()?;
        Ok(config)
    }

    /// Nothing in it contradicts itself.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn check(&self) -> Result<(), ConfigError> {
        let mut names = BTreeSet::new();
        for feed in &self.lab_feeds {
            if !is_name(&feed.name) {
                return Err(ConfigError::Name("lab_feeds.name"));
            }
            if !names.insert(&feed.name) {
                return Err(ConfigError::DuplicateFeed);
            }
            for (limit, name) in [
                (feed.max_message_bytes, "lab_feeds.max_message_bytes"),
                (feed.max_spooled, "lab_feeds.max_spooled"),
                (feed.max_connections, "lab_feeds.max_connections"),
            ] {
                if limit == 0 {
                    return Err(ConfigError::Zero(name));
                }
            }
        }
        let keys = &self.register_keys;
        let sound = keys.iter().all(|key| matron_policy::keys::decode_verifying_key(key).is_ok());
        if !sound || (self.register_file.is_some() && keys.is_empty()) {
            return Err(ConfigError::RegisterKeys);
        }
        if self.retention_poll_ms == 0 {
            return Err(ConfigError::Zero("retention_poll_ms"));
        }
        if self.retention_batch == 0 {
            return Err(ConfigError::Zero("retention_batch"));
        }
        Ok(())
    }
}

/// True for what may stand in a localpart and in a file name.
pub(crate) fn is_name(name: &str) -> bool {
    name.len() <= 64
        && name.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str =
        "homeserver_url = \"http://127.0.0.1:8008\"\nserver_name = \"a\"\ndata_dir = \"d\"\nregistration = \"r\"\n";

    #[test]
    fn four_keys_are_enough_and_unknown_ones_are_named() {
        let config: Config = toml::from_str(SMALL).unwrap();
        config.check().unwrap();
        let error = toml::from_str::<Config>(&format!("{SMALL}homserver = 1\n")).unwrap_err();
        assert!(error.to_string().contains("homserver"));
    }

    #[test]
    fn feeds_that_cannot_be_are_refused() {
        let feeds = |text: &str| toml::from_str::<Config>(&format!("{SMALL}{text}")).unwrap().check();
        let one = "[[lab_feeds]]\nname = \"p\"\nlisten = \"127.0.0.1:0\"\n";
        feeds(one).unwrap();
        assert!(matches!(feeds(&format!("{one}{one}")), Err(ConfigError::DuplicateFeed)));
        assert!(matches!(feeds(&one.replace("\"p\"", "\"../p\"")), Err(ConfigError::Name(_))));
        assert!(matches!(feeds(&format!("{one}max_spooled = 0\n")), Err(ConfigError::Zero(_))));
    }
}

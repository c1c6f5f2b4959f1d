//! Facts for the policy, the register, credentials, evictions, the audit log.

mod permit;

use std::sync::Arc;

use tokio::sync::watch;

pub use permit::{Permit, Refusal, RemoteVerdict};

use crate::{Core, Error, rooms::room::Inner};

/// What this concern keeps in memory; truth lives in the store.
#[derive(Debug, Default)]
pub struct State {}

impl Core {
    pub(crate) fn start_governance(&self) -> Result<(), Error> {
        Ok(())
    }

    /// How long the policy in force lets content of this room live, ms; `None`: policy sets no end.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(crate) fn policy_lifetime_ms(&self, _inner: &mut Inner) -> Result<Option<u64>, Error> {
        Ok(None)
    }

    /// The signed credential of a local user, as member events carry it.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(crate) fn credential_content(&self, _user: &ruma::UserId) -> Result<Option<serde_json::Value>, Error> {
        Ok(None)
    }

    /// Whether this server may speak with that one at all: federation is on, and the deployment's bounds allow it.
    #[must_use]
    pub fn peer_allowed(&self, _server: &ruma::ServerName) -> bool {
        self.settings.federation
    }

    /// Works until `stop` turns true.
    pub async fn run_governance(self: &Arc<Self>, mut stop: watch::Receiver<bool>) {
        crate::house::stopped(&mut stop).await;
    }
}

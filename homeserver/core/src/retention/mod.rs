//! The expiry index and the death of content.
//!
//! An event with a lifetime is sealed under a data key whose bucket ends when the event does. At its end:
//! hidden on every read path at once ([`crate::rooms::StoredEvent::is_shown`]), redacted by the governance bot,
//! purged ([`purge`]), and the bucket's key destroyed, so that backups and stale pages die too.

mod life;
mod purge;

pub use life::WITHOUT_END;

use crate::Core;

/// What this concern keeps in memory; truth lives in the store.
#[derive(Debug, Default)]
pub struct State {
    /// Wakes the worker before its next round.
    pub(crate) wake: tokio::sync::Notify,
}

impl Core {
    /// Asks the worker to look for expired content now.
    pub fn wake_retention(&self) {
        self.retention.wake.notify_one();
    }
}

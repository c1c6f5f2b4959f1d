//! The expiry index and the death of content.
//!
//! An event with a lifetime is sealed under a data key whose bucket ends when the event does. At its end:
//! hidden on every read path at once ([`crate::rooms::StoredEvent::is_shown`]), redacted by the governance bot or, if it
//! does not, by Matron on its behalf ([`redact`]), purged ([`purge`]) once it is redacted or the grace is over, and the
//! bucket's key destroyed ([`keys`]), so that backups and stale pages die too.
//!
//! Of a redaction, and of a member event that says more than who is a member, only the words die (their `reason`): sealed like
//! a message, they end without a redaction, and the event goes on as its skeleton ([`outlives_words`]).
//!
//! - [`life`]: how long content lives. [`expire`]: what has reached its end. [`due`]: what waits for its redaction.
//! - [`shorten`]: what is there already when a lifetime is set or becomes shorter.
//! - [`files`]: files that die with the event that shows them. [`worker`]: the rounds, on time.

mod due;
mod expire;
mod files;
mod keys;
mod life;
mod purge;
mod redact;
mod shorten;
#[cfg(test)]
mod tests;
mod worker;

pub use due::{DueEvent, RetentionDue};
pub use life::WITHOUT_END;
pub(crate) use life::{carries_words, outlives_words};
pub use worker::Round;

use parking_lot::Mutex;

use crate::Core;

/// What this concern keeps in memory; truth lives in the store.
#[derive(Debug, Default)]
pub struct State {
    /// Wakes the worker before its next round.
    pub(crate) wake: tokio::sync::Notify,
    /// Where the next look at what waits for its redaction begins.
    cursor: Mutex<Vec<u8>>,
}

impl Core {
    /// Asks the worker to look for expired content now.
    pub fn wake_retention(&self) {
        self.retention.wake.notify_one();
    }
}

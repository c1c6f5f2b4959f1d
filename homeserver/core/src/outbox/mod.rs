//! What peers must receive, over restarts: a row per destination and position, never a copy of an event.
//!
//! One sender at a time works for a destination. What it sends is a range of rows from the front; the rows go when the
//! peer has answered 200. The transaction's id is a hash of the rows, so that trying again is the same
//! transaction. A peer that fails is waited for, longer each time, also over restarts; whatever is heard from
//! it ends the waiting. Those that never answered, that failed, that spoke, that are new and that are well have places of
//! their own: none waits behind another kind.
//!
//! - [`queue`]: putting into the queue. [`receipts`]: of a reader, only the last. [`passing`]: what is worth telling only
//!   now, and is kept nowhere.
//! - [`schedule`]: who is sent to, and when. [`standing`]: who goes ahead of whom. [`worker`]: the senders.
//!   [`sender`]: one transaction. [`catch_up`]: the order after an outage.
//! - [`peer`]: what is known of a destination. [`report`]: the same, for operators.

mod catch_up;
mod passing;
mod peer;
mod queue;
mod receipts;
mod report;
mod schedule;
mod sender;
mod standing;
#[cfg(test)]
mod tests;
mod worker;

use std::collections::BTreeMap;

use parking_lot::Mutex;
use ruma::OwnedServerName;

pub use self::report::{PeerReport, Refusal};
pub(crate) use self::{passing::Subject, queue::unsealed_message};

/// What this concern keeps in memory; truth lives in the store.
#[derive(Debug, Default)]
pub struct State {
    /// Who is sent to, and when.
    schedule: Mutex<schedule::Schedule>,
    /// Wakes the worker.
    wake: tokio::sync::Notify,
    /// What is told once or not at all.
    passing: Mutex<passing::Passing>,
    /// What destinations refused of transactions that they took.
    refused: report::Refusals,
    /// When what the store knows of a destination was written, ms.
    noted: Mutex<BTreeMap<OwnedServerName, u64>>,
}

impl State {
    /// How many destinations are waited for because they failed.
    #[must_use]
    pub fn waiting_count(&self) -> usize {
        self.schedule.lock().waiting_count()
    }
}

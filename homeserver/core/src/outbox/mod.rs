//! What peers must receive, over restarts: a row per destination and position, never a copy of an event.
//!
//! One sender at a time works for a destination. What it sends is a range of rows from the front; the rows go when the
//! peer has answered 200. The transaction's id is a hash of the rows, so that trying again is the same
//! transaction. A peer that fails is waited for, longer each time, also over restarts; whatever is heard from
//! it ends the waiting.

mod queue;
mod sender;
mod worker;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use parking_lot::Mutex;
use ruma::OwnedServerName;

/// What this concern keeps in memory; truth lives in the store.
#[derive(Debug, Default)]
pub struct State {
    /// Destinations with something to send, for the worker.
    awake: Mutex<BTreeSet<OwnedServerName>>,
    /// Wakes the worker.
    wake: tokio::sync::Notify,
    /// Destinations with a sender at work, and whether more came meanwhile.
    busy: Mutex<HashMap<OwnedServerName, bool>>,
    /// Destinations that failed: until when they are left alone, ms.
    waiting: Mutex<BTreeMap<OwnedServerName, u64>>,
}

impl State {
    /// How many destinations are waited for because they failed.
    #[must_use]
    pub fn waiting_count(&self) -> usize {
        self.waiting.lock().len()
    }
}

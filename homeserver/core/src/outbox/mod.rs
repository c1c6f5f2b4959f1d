//! What peers must receive, over restarts: a row per destination and position, never a copy of an event.

mod queue;
mod worker;

use std::collections::{BTreeSet, HashMap};

use parking_lot::Mutex;
use ruma::OwnedServerName;

/// What this concern keeps in memory; truth lives in the store.
#[derive(Debug, Default)]
pub struct State {
    /// Destinations with something new, for the worker.
    pub(crate) awake: Mutex<BTreeSet<OwnedServerName>>,
    /// Wakes the worker.
    pub(crate) wake: tokio::sync::Notify,
    /// Destinations with a sender at work, and whether more came meanwhile.
    pub(crate) busy: Mutex<HashMap<OwnedServerName, bool>>,
}

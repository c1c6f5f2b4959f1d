//! Events from outside, handshakes, and what peers may read.

/// What this concern keeps in memory; truth lives in the store.
#[derive(Debug, Default)]
pub struct State {}

//! Events from outside, handshakes, and what peers may read.

mod handshake;
pub mod keys;

/// What this concern keeps in memory; truth lives in the store.
#[derive(Debug, Default)]
pub struct State {
    /// Signing keys of servers.
    pub(crate) keys: keys::State,
}

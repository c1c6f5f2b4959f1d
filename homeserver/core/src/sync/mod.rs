//! One stream, told to each client exactly once.

/// What this concern keeps in memory; truth lives in the store.
#[derive(Debug, Default)]
pub struct State {}

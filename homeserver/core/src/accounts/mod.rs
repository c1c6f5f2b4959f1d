//! Users, devices, tokens, profiles, account data, filters.

/// What this concern keeps in memory; truth lives in the store.
#[derive(Debug, Default)]
pub struct State {}

//! What the crate promises, checked from outside.

mod conformance;
mod keyring;

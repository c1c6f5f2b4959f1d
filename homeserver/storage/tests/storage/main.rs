//! What the crate promises, checked from outside.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests and what they share")]

mod conformance;
mod crash;
mod directory;
mod key;
mod keyring;
mod log;
mod model;

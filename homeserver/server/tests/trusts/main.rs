//! Trusts of several kinds on one machine: real Matrons and a real Synapse, over TLS, without the internet.
//!
//! Synapse comes from PyPI into `target/synapse-VERSION` at the first run. Without Python these tests are skipped with
//! a notice, unless `CI` or `REQUIRE_SYNAPSE` is set: then it is a failure.

// The client library's futures are deep.
#![recursion_limit = "256"]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that panics fails, as it should")]

mod authority;
mod bounded;
mod checkpoint;
mod converge;
mod directory;
mod encrypted;
#[path = "../shared/free_address.rs"]
mod free_address;
mod http;
mod install;
mod joins;
mod kills;
mod media;
mod membership;
mod outage;
mod person;
mod scenario;
mod steps;
mod talk;
mod trust;
mod trusts;

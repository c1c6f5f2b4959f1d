//! The real binary from outside, and the shape of the workspace.

// The client library's futures are deep.
#![recursion_limit = "256"]
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that panics fails, as it should")]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "what a test found is read on its output")]

mod addresses;
mod authorisation;
mod bad_starts;
mod bounds;
mod cas;
mod clients;
mod dependency_direction;
mod federation;
#[path = "../shared/free_address.rs"]
mod free_address;
mod full_disk;
mod identity;
mod identity_server;
mod kill;
mod load;
mod malformed;
mod matrix_sdk;
mod operator;
mod peer;
mod proxy;
mod redaction;
mod routes;
mod serve;
mod service;
mod sick;
mod ssrf;
mod standing;
mod support;
mod tls;
mod walk;
mod wire;

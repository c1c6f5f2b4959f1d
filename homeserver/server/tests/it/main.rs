//! The real binary from outside, and the shape of the workspace.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that panics fails, as it should")]

mod bad_starts;
mod clients;
mod dependency_direction;
mod federation;
mod kill;
mod matrix_sdk;
mod operator;
mod proxy;
mod redaction;
mod serve;
mod service;
mod support;
mod tls;

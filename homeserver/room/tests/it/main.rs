//! Tests of the crate through its public interface.

mod auth;
mod client;
mod draft;
mod keys;
mod redaction;
mod resolution;
mod support;
mod untrusted;
mod vectors;

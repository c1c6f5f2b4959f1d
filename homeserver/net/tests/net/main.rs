//! The crate against real TLS servers on loopback, in a world whose DNS and routing the test writes.
#![expect(clippy::unwrap_used, reason = "a test that cannot set up its world should stop")]

mod bounds;
mod discovery;
mod guard;
mod identity;
mod mail;
mod outbound;
mod pooling;
mod signing;
mod tls;
mod world;

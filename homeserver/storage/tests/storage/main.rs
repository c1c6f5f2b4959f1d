//! What the crate promises, checked from outside.

mod conformance;
mod crash;
mod directory;
mod keyring;
mod model;

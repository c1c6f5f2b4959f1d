//! Two hospital trusts on one machine share a clinical room, told step by step.
//!
//! The demo is a stranger to the server: it starts the `matron` program as an operator would, uses its
//! command line, and drives clients built on the public matrix-rust-sdk. Nothing here knows the server's inside.
//!
//! - [`chapters`]: the story, a chapter a file. [`story`]: how it is told and judged. [`world`]: what all chapters share.
//! - [`authority`]: a throw-away certificate authority. [`trust`]: one server process and its files.
//! - [`clinician`]: a person with a real client. [`laboratory`]: a sender of HL7 over MLLP.
//! - [`search`]: looking for bytes in the raw files of a server.

// The futures of the client library are that deep.
#![recursion_limit = "256"]

mod authority;
mod chapters;
mod clinician;
mod laboratory;
mod search;
mod story;
mod trust;
mod world;

use std::path::PathBuf;

pub use story::DemoError;

/// What the demo needs to know.
#[derive(Debug)]
pub struct Options {
    /// The `matron` program.
    pub matron: PathBuf,
    /// Stop at the end instead of leaving the trusts up for a person to look at.
    pub check: bool,
}

/// The story is told on standard output; every step held.
///
/// # Errors
/// [`DemoError`] naming the step that did not hold. Every process that was started has ended.
pub async fn run(options: Options) -> Result<(), DemoError> {
    chapters::play(&options).await
}

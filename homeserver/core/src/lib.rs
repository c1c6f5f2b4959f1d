//! What Matron does: the use cases of a Matrix homeserver bound by policy.
//!
//! The house in one page. Each module is one concern, each use case is a method on [`Core`] in the file of
//! its name; `matron-api` turns HTTP into these calls and back, `matron-net` carries what leaves.
//!
//! - [`rooms`]: the room task (the single writer of a room), creating, sending, membership, reading.
//! - [`federation`]: events from outside, one file per check; handshakes; what peers may read.
//! - [`outbox`]: what peers must receive, by cursor, over restarts.
//! - [`sync`]: one stream, told to each client exactly once.
//! - [`peeks`]: devices that look into open rooms from outside.
//! - [`accounts`]: users, devices, tokens, profiles, account data, filters.
//! - [`identity`]: identity servers, and invites by e-mail address or telephone number.
//! - [`keys`]: device keys, one-time keys, cross-signing, key backup, to-device messages, device lists.
//! - [`media`]: files, thumbnails, remote media.
//! - [`push`]: push rules and notification counts.
//! - [`threads`]: which of them a user follows.
//! - [`presence`] and typing: what is never written to the room.
//! - [`governance`]: facts for `matron-policy`, the register, credentials, evictions, the audit log.
//! - [`retention`]: the expiry index and the death of content.
//! - [`appservices`]: registrations and their transactions.
//! - [`ports`]: the outside, as traits. [`settings`]: what an operator may choose.

pub mod accounts;
pub mod admin;
pub mod appservices;
pub mod error;
pub mod federation;
pub mod governance;
pub mod identity;
pub mod keys;
pub mod media;
pub mod notifier;
pub mod oauth;
pub mod outbox;
pub mod peeks;
pub mod policy_server;
pub mod ports;
pub mod presence;
pub mod push;
pub mod retention;
pub mod rooms;
pub mod settings;
pub mod sync;
pub mod threads;
pub mod turn;

mod house;
mod remembered;
#[cfg(test)]
mod test_world;

pub use error::Error;
pub use house::{Core, Parts, Requester};
pub use settings::Settings;

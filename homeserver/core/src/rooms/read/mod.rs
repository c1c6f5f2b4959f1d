//! What users see of rooms.

mod client_event;
pub mod context;
mod filter;
mod initial_sync;
mod members;
pub mod messages;
pub mod mutual;
pub mod peek;
pub mod relations;
pub mod search;
pub mod space;
mod state;
pub mod threads;
mod timestamp;
pub mod token;

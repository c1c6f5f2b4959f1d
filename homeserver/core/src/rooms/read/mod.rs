//! What users see of rooms.

mod client_event;
pub mod context;
mod filter;
mod members;
pub mod messages;
mod state;
pub mod token;

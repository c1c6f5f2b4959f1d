//! What users see of rooms.

mod client_event;
mod members;
mod state;

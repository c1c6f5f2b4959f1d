//! What users see of rooms.

mod client_event;

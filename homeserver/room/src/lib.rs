//! matron-room

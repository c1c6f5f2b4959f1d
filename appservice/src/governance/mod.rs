//! The governance bot: creates bounded rooms, explains decisions, redacts what expired.

mod room;

pub(crate) use room::server_of;
pub use room::{ClinicalRoomSpec, ROOM_POLICY_TYPE, SpecError};

//! What other servers may read. Every answer about a room goes through [`access`]: who asks must be in the room, or must
//! have been when the event was sent, and sees of each event what the room's history visibility allows.

pub mod access;
mod directory;
mod events;
mod hierarchy;
mod history;
mod state;
mod timestamp;

pub use events::{EventAnswer, EventAuth};
pub(crate) use hierarchy::ChildContent;
pub use hierarchy::{Hierarchy, HierarchyRoom};
pub use history::{Backfill, MissingEvents, MissingRequest};
pub use state::{RoomState, RoomStateIds};
pub use timestamp::NearestEvent;

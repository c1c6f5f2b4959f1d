//! What operators do through the admin API: rooms and files looked at, emptied and removed.
//!
//! Accounts are in [`accounts`](crate::accounts). Everything here is asked for by an operator; the callers check that.

mod history;
mod media;
mod remove;
mod rooms;
mod task;

pub use history::PurgeUpTo;
pub use remove::{RemoveRoom, Removed};
pub use rooms::{RoomFacts, RoomOrder, RoomPage};
pub use task::{Task, TaskState};

use parking_lot::Mutex;

/// What this concern keeps in memory.
#[derive(Debug, Default)]
pub struct State {
    /// What was asked for lately, and what became of it.
    tasks: Mutex<task::Tasks>,
}

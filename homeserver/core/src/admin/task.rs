//! Work that takes longer than a request: begun, looked at, remembered for a while. A restart forgets it, not its effects.

use std::num::NonZeroUsize;

use lru::LruCache;
use ruma::{OwnedRoomId, RoomId};
use serde::Serialize;

use super::Removed;
use crate::{Core, Error, accounts::fresh_name};

/// How many are remembered.
const MAX_TASKS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(999);

/// How many may run at once.
const MAX_RUNNING: usize = 4;

/// By id.
#[derive(Debug)]
pub(super) struct Tasks(LruCache<String, Task>);

impl Default for Tasks {
    fn default() -> Self {
        Self(LruCache::new(MAX_TASKS))
    }
}

/// Whether it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TaskState {
    /// Still at work.
    Active,
    /// Done.
    Complete,
    /// It could not be done; the log says why.
    Failed,
}

/// What was asked for, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// Its id.
    pub id: String,
    /// The room that it is about.
    pub room_id: OwnedRoomId,
    /// Whether the room goes, or only its history.
    pub removes_room: bool,
    /// How far it is.
    pub state: TaskState,
    /// What the removal of a room did.
    pub removed: Option<Removed>,
}

impl Core {
    /// A new task; its id.
    ///
    /// # Errors
    /// `M_LIMIT_EXCEEDED` while too many run; `M_UNKNOWN` (400) while one of the same kind runs for the room.
    pub(super) fn begin_task(&self, room: &RoomId, removes_room: bool) -> Result<String, Error> {
        let mut tasks = self.admin.tasks.lock();
        let running: Vec<&Task> =
            tasks.0.iter().map(|(_, task)| task).filter(|t| t.state == TaskState::Active).collect();
        if running.iter().any(|task| task.room_id == room && task.removes_room == removes_room) {
            return Err(Error::Unknown("this is being done for this room already".into()));
        }
        if running.len() >= MAX_RUNNING {
            return Err(Error::LimitExceeded { retry_after_ms: 10_000 });
        }
        let id = fresh_name(16);
        let task =
            Task { id: id.clone(), room_id: room.to_owned(), removes_room, state: TaskState::Active, removed: None };
        tasks.0.put(id.clone(), task);
        Ok(id)
    }

    /// The task has ended.
    pub(super) fn end_task(&self, id: &str, outcome: Result<Option<Removed>, Error>) {
        let mut tasks = self.admin.tasks.lock();
        let Some(task) = tasks.0.get_mut(id) else { return };
        match outcome {
            Ok(removed) => {
                task.state = TaskState::Complete;
                task.removed = removed;
            }
            Err(error) => {
                tracing::error!(%error, room.id = %task.room_id, "an operator's task failed");
                task.state = TaskState::Failed;
            }
        }
    }

    /// A task.
    ///
    /// # Errors
    /// `M_NOT_FOUND`.
    pub fn find_task(&self, id: &str) -> Result<Task, Error> {
        let found = self.admin.tasks.lock().0.peek(id).cloned();
        found.ok_or_else(|| Error::not_found("no task has this id"))
    }

    /// The tasks that remove this room, the latest first.
    #[must_use]
    pub fn removals_of(&self, room: &RoomId) -> Vec<Task> {
        let tasks = self.admin.tasks.lock();
        tasks.0.iter().map(|(_, task)| task).filter(|task| task.removes_room && task.room_id == room).cloned().collect()
    }
}

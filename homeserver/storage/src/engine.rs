//! The engines: what each of them does with the one contract of [`Store`].

mod committer;
mod directory;
mod marks;
pub mod memory;
mod restore;
pub mod sled;
mod slots;
pub mod sqlite;

use std::{fmt, path::Path, str::FromStr, sync::Arc};

pub use self::restore::restore;
use crate::{Store, StoreError};

/// Which engine keeps the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EngineKind {
    /// Nothing on disk; gone with the process. For tests.
    Memory,
    /// SQLite in write-ahead mode with a flush per commit group: the default.
    #[default]
    Sqlite,
    /// sled 0.34 with a flush of our own per commit group.
    Sled,
}

impl EngineKind {
    /// Every engine.
    pub const ALL: [Self; 3] = [Self::Memory, Self::Sqlite, Self::Sled];

    /// Its name in the configuration and in the store's marker.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Sqlite => "sqlite",
            Self::Sled => "sled",
        }
    }
}

impl fmt::Display for EngineKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// A name that is no engine's.
#[derive(Debug, thiserror::Error)]
#[error("unknown storage engine; the engines are memory, sqlite and sled")]
pub struct UnknownEngine;

impl FromStr for EngineKind {
    type Err = UnknownEngine;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|kind| kind.name() == name).ok_or(UnknownEngine)
    }
}

/// A store of this engine in `dir` is open, and no other process can open it; `dir` was made if it was absent.
///
/// The memory engine ignores `dir`.
///
/// # Errors
/// [`StoreError::Foreign`] when `dir` holds another engine's store, a newer format or something that no
/// engine wrote, or while another process holds it; nothing is overwritten then. [`StoreError::Corrupt`]
/// when the store is damaged.
pub fn open(engine: EngineKind, dir: &Path) -> Result<Arc<dyn Store>, StoreError> {
    Ok(match engine {
        EngineKind::Memory => Arc::new(memory::MemoryStore::new()),
        EngineKind::Sqlite => Arc::new(sqlite::SqliteStore::open(dir)?),
        EngineKind::Sled => Arc::new(sled::SledStore::open(dir)?),
    })
}

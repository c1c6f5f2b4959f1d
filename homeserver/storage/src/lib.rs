//! Where Matron keeps what it must not forget, and how it makes the rest forgettable.
//!
//! The house in one page:
//!
//! - [`Store`]: what every engine must honour: point reads, bounded scans, and a conditional atomic
//!   [`Batch`]. Nothing else touches a disk.
//! - [`Table`]: the catalogue of tables: owner, key layout, size bound, deletion rule.
//! - [`key`]: how typed keys become bytes that sort in order.
//! - [`engine`]: `memory`, `sqlite` (default), `sled`; one suite, `conformance`, that all three pass.
//! - [`keyring`]: data keys per room and time bucket, outside the engine; sealing of content.
//! - [`transfer`]: a whole store from engine to engine, or through a file.
//!
//! ```
//! use matron_storage::{Batch, EngineKind, Key, KeyRange, Order, SlotForm, Table, open};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let store = open(EngineKind::Memory, std::path::Path::new("ignored"))?;
//! let mut batch = Batch::new();
//! let index = batch.reserve_position();
//! let (key, slot) = Key::new().text("!room:example.org").position(index, SlotForm::Timeline);
//! batch.expect_absent(Table::EventPdu, "$event");
//! batch.put(Table::EventPdu, "$event", "{}").put_at(Table::RoomTimeline, key, Some(slot), "$event", None);
//! // In a task: `store.submit(batch).await`.
//! let committed = store.submit(batch).wait()?;
//! assert_eq!(store.position(), committed.last());
//!
//! let room: KeyRange = Key::new().text("!room:example.org").prefix();
//! assert_eq!(store.scan(Table::RoomTimeline, &room, Order::Descending, 10)?.len(), 1);
//! # Ok(())
//! # }
//! ```

pub mod batch;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod engine;
pub mod key;
pub mod keyring;
mod lock;
pub mod tables;
pub mod transfer;

pub use batch::{Batch, Clash, CommitError, Committed, Expect, Op, Pending, Slot, SlotForm};
pub use engine::{EngineKind, open, restore};
pub use key::{Key, KeyRange, KeyReader};
pub use keyring::{KeyRing, KeyRingError, MasterKey, MasterKeyError};
pub use tables::Table;

use std::fmt::Debug;

/// A position in the one stream of everything that changes: larger is later, gap-free once visible.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamPos(pub u64);

/// When something last changed, as far as [`Store::mark`] knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// Another one after every change. Not on disk: the next process counts anew.
    pub version: u64,
    /// Nothing changed at a later position.
    pub position: StreamPos,
}

/// A key and its value, as an engine gives them.
pub type Row = (Vec<u8>, Vec<u8>);

/// The largest number of rows that one [`Store::scan`] returns, whatever was asked.
pub const MAX_PAGE: usize = 10_000;

/// How many rows [`Store::check`] holds at once.
const CHECK_PAGE: usize = 256;

/// In which order [`Store::scan`] walks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Smallest key first.
    Ascending,
    /// Largest key first.
    Descending,
}

/// Why a read, or the opening of an engine, failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The engine itself failed.
    #[error("storage engine: {0}")]
    Engine(String),
    /// The disk or file system failed.
    #[error("storage input or output")]
    Io(#[from] std::io::Error),
    /// What is on disk is not what this version writes.
    #[error("storage holds something unreadable: {0}")]
    Corrupt(String),
    /// The data directory belongs to something else, or to another version.
    #[error("{0}")]
    Foreign(String),
    /// The disk is full; nothing was written.
    #[error("the disk is full")]
    Full,
    /// The engine was closed.
    #[error("storage is closed")]
    Closed,
}

impl StoreError {
    /// The same error for one more batch of a group.
    pub(crate) fn again(&self) -> Self {
        match self {
            Self::Engine(text) => Self::Engine(text.clone()),
            Self::Io(error) => Self::Io(error.kind().into()),
            Self::Corrupt(text) => Self::Corrupt(text.clone()),
            Self::Foreign(text) => Self::Foreign(text.clone()),
            Self::Full => Self::Full,
            Self::Closed => Self::Closed,
        }
    }
}

/// What every engine honours.
///
/// Reads are synchronous and see every batch whose [`Pending`] has resolved. Writes go through
/// [`Store::submit`]: all batches that wait are merged into one engine transaction and one flush, and
/// are then acknowledged together, in the order of their positions.
pub trait Store: Send + Sync + Debug + 'static {
    /// The value at `key`, or `None`.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// The values at `keys`, in their order.
    ///
    /// # Errors
    /// As [`Store::get`].
    fn get_many(&self, table: Table, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        keys.iter().map(|key| self.get(table, key)).collect()
    }

    /// At most `limit` (and at most [`MAX_PAGE`]) rows of `range`, in `order`.
    ///
    /// # Errors
    /// As [`Store::get`].
    fn scan(&self, table: Table, range: &KeyRange, order: Order, limit: usize) -> Result<Vec<Row>, StoreError>;

    /// Hands a batch to the committer. Once the answer resolves, the batch is durable and visible, whole.
    ///
    /// Batches are committed in the order of their submission. The queue is bounded: while it is full, this call waits
    /// for room, about as long as one flush.
    fn submit(&self, batch: Batch) -> Pending;

    /// The highest position at or below which every batch is visible.
    fn position(&self) -> StreamPos;

    /// When something under `prefix` last changed: an empty one (the table), a key's first text with its end, or a whole key.
    ///
    /// A change is marked after it is visible and before [`Store::position`] moves to it. So what was read after a mark
    /// was taken is good as long as the mark's version stays; and a position that was sampled earlier is covered by
    /// the mark's. May move without a change, never the other way round.
    fn mark(&self, table: Table, prefix: &[u8]) -> Mark;

    /// Rewrites what deletion left readable in the raw files, as far as the engine can; called after purges.
    ///
    /// # Errors
    /// As [`Store::get`].
    fn maintain(&self) -> Result<(), StoreError>;

    /// Everything that the engine keeps can be read, and is in the order that it should be in; reads all of it.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] or [`StoreError::Engine`] when it is damaged.
    fn check(&self) -> Result<(), StoreError> {
        for info in tables::CATALOGUE {
            let mut range = KeyRange::all();
            while let Some((last, _)) = self.scan(info.table, &range, Order::Ascending, CHECK_PAGE)?.pop() {
                range = range.after(&last);
            }
        }
        Ok(())
    }

    /// Writes a consistent copy of everything to `target`, a directory that does not exist yet.
    ///
    /// # Errors
    /// [`StoreError::Foreign`] when `target` exists.
    fn backup(&self, target: &std::path::Path) -> Result<(), StoreError>;

    /// Which engine this is: `memory`, `sqlite` or `sled`.
    fn engine(&self) -> &'static str;

    /// How many times the committer flushed since the store was opened; far fewer than batches under load.
    fn flushes(&self) -> u64 {
        0
    }

    /// Waits for the committer to end; later batches fail with [`StoreError::Closed`].
    fn close(&self);
}

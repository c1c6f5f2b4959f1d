//! The memory engine: the contract and nothing more. For tests, and as the model of the others.

use std::{
    collections::BTreeMap,
    ops::Bound,
    path::Path,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use parking_lot::RwLock;

use crate::{
    Batch, CommitError, Committed, Expect, KeyRange, MAX_PAGE, Mark, Op, Order, Pending, Row, Store, StoreError,
    StreamPos, Table,
    engine::{
        marks::{Marks, Touched},
        slots,
        sqlite::SqliteStore,
    },
    tables::CATALOGUE,
};

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;
type Bounds<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

/// A store that lives and dies with the process. A commit is "durable" when it is visible.
#[derive(Debug)]
pub struct MemoryStore {
    tables: RwLock<Vec<Rows>>,
    position: AtomicU64,
    marks: Marks,
    closed: AtomicBool,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self {
            tables: RwLock::new(vec![Rows::new(); CATALOGUE.len()]),
            position: AtomicU64::new(0),
            marks: Marks::new(StreamPos(0)),
            closed: AtomicBool::new(false),
        }
    }

    fn check_open(&self) -> Result<(), StoreError> {
        if self.closed.load(Ordering::Acquire) { Err(StoreError::Closed) } else { Ok(()) }
    }

    fn commit(&self, mut batch: Batch) -> Result<Committed, CommitError> {
        let mut tables = self.tables.write();
        self.check_open()?;
        let position = self.position.load(Ordering::Acquire);
        let first = if batch.positions == 0 { position } else { position.saturating_add(1) };
        let committed = Committed { first: StreamPos(first), count: batch.positions };
        slots::fill(&mut batch, committed.first)?;
        let mut touched = Touched::default();
        touched.add(&batch);
        for (index, expect) in batch.expect.iter().enumerate() {
            let (table, key, wanted) = match expect {
                Expect::Absent { table, key } => (table, key, None),
                Expect::Equals { table, key, value } => (table, key, Some(value)),
            };
            if tables.get(table.index()).and_then(|rows| rows.get(key)) != wanted {
                return Err(CommitError::Conflict(index));
            }
        }
        for op in batch.ops {
            match op {
                Op::Put { table, key, value, .. } => {
                    rows_mut(&mut tables, table)?.insert(key, value);
                }
                Op::Delete { table, key } => {
                    rows_mut(&mut tables, table)?.remove(&key);
                }
                Op::DeleteRange { table, range } => {
                    let rows = rows_mut(&mut tables, table)?;
                    let Some(bounds) = bounds(&range) else { continue };
                    let doomed: Vec<_> = rows.range::<[u8], _>(bounds).map(|(key, _)| key.clone()).collect();
                    for key in doomed {
                        rows.remove(&key);
                    }
                }
            }
        }
        let position = position.saturating_add(u64::from(batch.positions));
        // INVARIANT: marked before the position moves; nobody reads before the lock is given back.
        self.marks.touch(&touched, StreamPos(position));
        self.position.store(position, Ordering::Release);
        Ok(committed)
    }
}

fn rows_mut(tables: &mut [Rows], table: Table) -> Result<&mut Rows, StoreError> {
    tables.get_mut(table.index()).ok_or_else(|| StoreError::Corrupt("a table is missing in the catalogue".to_owned()))
}

/// The bounds of `range` for a map; `None` when it is empty, which a map answers with a panic.
fn bounds(range: &KeyRange) -> Option<Bounds<'_>> {
    match &range.end {
        Some(end) if *end <= range.start => None,
        Some(end) => Some((Bound::Included(&range.start), Bound::Excluded(end))),
        None => Some((Bound::Included(&range.start), Bound::Unbounded)),
    }
}

impl Store for MemoryStore {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.check_open()?;
        Ok(self.tables.read().get(table.index()).and_then(|rows| rows.get(key)).cloned())
    }

    fn scan(&self, table: Table, range: &KeyRange, order: Order, limit: usize) -> Result<Vec<Row>, StoreError> {
        self.check_open()?;
        let tables = self.tables.read();
        let (Some(rows), Some(bounds)) = (tables.get(table.index()), bounds(range)) else { return Ok(Vec::new()) };
        let found = rows.range::<[u8], _>(bounds).map(|(key, value)| (key.clone(), value.clone()));
        let limit = limit.min(MAX_PAGE);
        Ok(match order {
            Order::Ascending => found.take(limit).collect(),
            Order::Descending => found.rev().take(limit).collect(),
        })
    }

    fn submit(&self, batch: Batch) -> Pending {
        let (answer, pending) = Pending::channel();
        // The receiving end is right here; it cannot be gone.
        drop(answer.send(self.commit(batch)));
        pending
    }

    fn position(&self) -> StreamPos {
        StreamPos(self.position.load(Ordering::Acquire))
    }

    fn mark(&self, table: Table, prefix: &[u8]) -> Mark {
        self.marks.read(table, prefix)
    }

    fn maintain(&self) -> Result<(), StoreError> {
        self.check_open()
    }

    /// Writes an SQLite store: a copy on disk needs an engine of the disk.
    fn backup(&self, target: &Path) -> Result<(), StoreError> {
        self.check_open()?;
        if target.exists() {
            return Err(StoreError::Foreign("the target of a backup must not exist yet".to_owned()));
        }
        let copy = SqliteStore::open(target)?;
        crate::transfer::copy(self, &copy).map(drop)
    }

    fn engine(&self) -> &'static str {
        "memory"
    }

    fn close(&self) {
        self.closed.store(true, Ordering::Release);
        // Whoever commits holds the lock; nobody commits once we had it.
        drop(self.tables.write());
    }
}

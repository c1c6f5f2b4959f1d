//! The sled engine: pinned to 0.34.7, with a flush of our own before anything is acknowledged.
//!
//! Everything lives in one tree, so that one sled batch covers all tables: a byte for the table, then the key.
//!
//! Limits, which an operator who chooses it accepts:
//! - A value of more than 256 KiB takes several rows ([`large`]).
//! - Deleted bytes stay in the raw file until sled reuses their segment, and the file does not shrink;
//!   [`Store::maintain`] cannot help, only backup and restore write it anew. Content is safe all the same: it is
//!   sealed, and its key is destroyed elsewhere.
//! - Point reads may see a batch for the instant between its application and its flush; [`Store::position`]
//!   moves after the flush, as everywhere.
//! - A failed write poisons sled, so commits are refused as [`StoreError::Full`] while the file system has less
//!   than a reserve left.

mod large;
mod write;

use std::{fmt, fs::File, io, ops::Bound, path::Path, sync::Arc, thread::sleep, time::Duration};

use parking_lot::{Mutex, RwLock};

use self::write::SledWriter;
use crate::{
    Batch, KeyRange, MAX_PAGE, Mark, Order, Pending, Row, Store, StoreError, StreamPos, Table,
    engine::{
        EngineKind,
        committer::Committer,
        directory::{StoreDir, create_directory, sync_directory, write_backup},
    },
    tables::CATALOGUE,
};

const CACHE_BYTES: u64 = 32 * 1024 * 1024;
/// What must be free on the disk for a commit to be tried.
const RESERVE_BYTES: u64 = 32 * 1024 * 1024;
/// The byte before the store's own keys; tables begin at 1 and end before 255.
const META: u8 = 0;
const META_POSITION: &[u8] = b"\0position";
const META_TABLE: &[u8] = b"\0table/";
/// How often and how long opening waits for an earlier handle of this process to end.
const OPEN_ATTEMPTS: u32 = 100;
const OPEN_PAUSE: Duration = Duration::from_millis(50);

type Bounds = (Bound<Vec<u8>>, Bound<Vec<u8>>);

/// How many bytes are free where the store lies.
pub type FreeBytes = Arc<dyn Fn() -> io::Result<u64> + Send + Sync>;

/// A store in one sled tree.
pub struct SledStore {
    /// Held shared by readers, and alone while a batch is applied, so that no page shows half of one.
    tree: Arc<RwLock<Option<sled::Db>>>,
    tables: Tables,
    committer: Committer<SledWriter>,
    directory: Mutex<Option<StoreDir>>,
}

impl fmt::Debug for SledStore {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SledStore").field("committer", &self.committer).finish_non_exhaustive()
    }
}

/// The byte of each table. Given once by name, so that the catalogue may grow anywhere.
#[derive(Clone, Debug)]
struct Tables(Vec<u8>);

impl SledStore {
    /// The store in `dir` is open; see [`engine::open`](crate::engine::open).
    ///
    /// # Errors
    /// As [`engine::open`](crate::engine::open).
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let place = dir.to_owned();
        let free = move || {
            let space = rustix::fs::statvfs(&place)?;
            Ok(space.f_bavail.saturating_mul(space.f_frsize))
        };
        Self::open_with(dir, Arc::new(free))
    }

    /// As [`SledStore::open`], told by `free` how much room the disk has.
    ///
    /// # Errors
    /// As [`engine::open`](crate::engine::open).
    pub fn open_with(dir: &Path, free: FreeBytes) -> Result<Self, StoreError> {
        let mut directory = StoreDir::open(dir, EngineKind::Sled)?;
        let path = directory.files();
        if directory.is_fresh() {
            create_directory(&path)?;
        }
        let db = open_tree(&path)?;
        let tables = Tables::load(&db)?;
        let position = match db.get(META_POSITION).map_err(store_error)? {
            None => 0,
            Some(bytes) => u64::from_be_bytes(
                bytes.as_ref().try_into().map_err(|_| StoreError::Corrupt("the position is no number".to_owned()))?,
            ),
        };
        let tree = Arc::new(RwLock::new(Some(db.clone())));
        let writer = SledWriter::new(db, Arc::clone(&tree), tables.clone(), &path, free)?;
        writer.sync()?;
        directory.mark_ready()?;
        let committer = Committer::start(writer, StreamPos(position))?;
        Ok(Self { tree, tables, committer, directory: Mutex::new(Some(directory)) })
    }
}

fn open_tree(path: &Path) -> Result<sled::Db, StoreError> {
    let config = sled::Config::new().path(path).cache_capacity(CACHE_BYTES).flush_every_ms(None);
    let mut attempt = 0;
    loop {
        match config.open() {
            Ok(db) => return Ok(db),
            // INVARIANT: the directory's lock is ours, so this is a handle of this process that has not ended yet.
            Err(sled::Error::Io(error)) if attempt < OPEN_ATTEMPTS && is_locked(&error) => {
                attempt += 1;
                sleep(OPEN_PAUSE);
            }
            Err(error) => return Err(store_error(error)),
        }
    }
}

/// The value under this key of the tree.
fn find(db: &sled::Db, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
    db.get(key).map_err(store_error)?.map(|value| large::whole(db, key, &value)).transpose()
}

fn is_locked(error: &io::Error) -> bool {
    // sled 0.34 wraps the lock's error in one of its own kind.
    error.kind() == io::ErrorKind::WouldBlock || error.to_string().contains("could not acquire lock")
}

/// sled's error in the words of the store.
fn store_error(error: sled::Error) -> StoreError {
    match error {
        sled::Error::Io(error) if error.kind() == io::ErrorKind::StorageFull => StoreError::Full,
        sled::Error::Io(error) => StoreError::Io(error),
        error @ sled::Error::Corruption { .. } => StoreError::Corrupt(error.to_string()),
        error => StoreError::Engine(error.to_string()),
    }
}

impl Tables {
    /// The bytes of all tables of the catalogue; new tables were given theirs.
    fn load(db: &sled::Db) -> Result<Self, StoreError> {
        let mut known = std::collections::BTreeMap::new();
        for row in db.scan_prefix(META_TABLE) {
            let (key, value) = row.map_err(store_error)?;
            let name = key.get(META_TABLE.len()..).unwrap_or_default().to_vec();
            known.insert(name, value.first().copied().unwrap_or(META));
        }
        let mut last = known.values().copied().max().unwrap_or(META);
        let mut bytes = Vec::with_capacity(CATALOGUE.len());
        for info in CATALOGUE {
            if let Some(byte) = known.get(info.name.as_bytes()) {
                bytes.push(*byte);
                continue;
            }
            last = last
                .checked_add(1)
                .filter(|byte| *byte < u8::MAX)
                .ok_or_else(|| StoreError::Engine("the sled engine has no room for another table".to_owned()))?;
            let key = [META_TABLE, info.name.as_bytes()].concat();
            db.insert(key, &[last]).map_err(store_error)?;
            bytes.push(last);
        }
        Ok(Self(bytes))
    }

    fn byte(&self, table: Table) -> u8 {
        // The catalogue is the list that this was made from.
        self.0.get(table.index()).copied().unwrap_or(u8::MAX)
    }

    /// The key in the tree.
    fn key(&self, table: Table, key: &[u8]) -> Vec<u8> {
        let mut full = Vec::with_capacity(key.len().saturating_add(1));
        full.push(self.byte(table));
        full.extend_from_slice(key);
        full
    }

    /// The bounds in the tree; `None` when the range is empty.
    fn bounds(&self, table: Table, range: &KeyRange) -> Option<Bounds> {
        let start = self.key(table, &range.start);
        let end = match &range.end {
            Some(end) if *end <= range.start => return None,
            Some(end) => self.key(table, end),
            None => vec![self.byte(table).saturating_add(1)],
        };
        Some((Bound::Included(start), Bound::Excluded(end)))
    }
}

impl Store for SledStore {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let tree = self.tree.read();
        let db = tree.as_ref().ok_or(StoreError::Closed)?;
        find(db, &self.tables.key(table, key))
    }

    fn get_many(&self, table: Table, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        let tree = self.tree.read();
        let db = tree.as_ref().ok_or(StoreError::Closed)?;
        keys.iter().map(|key| find(db, &self.tables.key(table, key))).collect()
    }

    fn scan(&self, table: Table, range: &KeyRange, order: Order, limit: usize) -> Result<Vec<Row>, StoreError> {
        let tree = self.tree.read();
        let db = tree.as_ref().ok_or(StoreError::Closed)?;
        let Some(bounds) = self.tables.bounds(table, range) else { return Ok(Vec::new()) };
        let mut found = db.range(bounds);
        let mut rows = Vec::new();
        while rows.len() < limit.min(MAX_PAGE) {
            let row = match order {
                Order::Ascending => found.next(),
                Order::Descending => found.next_back(),
            };
            let Some(row) = row else { break };
            let (key, value) = row.map_err(store_error)?;
            rows.push((key.get(1..).unwrap_or_default().to_vec(), large::whole(db, &key, &value)?));
        }
        Ok(rows)
    }

    fn submit(&self, batch: Batch) -> Pending {
        self.committer.submit(batch)
    }

    fn position(&self) -> StreamPos {
        self.committer.position()
    }

    fn mark(&self, table: Table, prefix: &[u8]) -> Mark {
        self.committer.mark(table, prefix)
    }

    /// Flushes, and no more: sled has no way to rewrite what deletion left; see the [module](self).
    fn maintain(&self) -> Result<(), StoreError> {
        self.committer.run(|writer| writer.sync())
    }

    /// Writes a new store, row by row; commits wait meanwhile, since sled has no snapshots.
    fn backup(&self, target: &Path) -> Result<(), StoreError> {
        write_backup(target, EngineKind::Sled, |path| {
            create_directory(path)?;
            let copy = path.to_owned();
            self.committer.run(move |writer| writer.export(&open_tree(&copy)?))?;
            File::open(path.join("db"))?.sync_all()?;
            sync_directory(&path.join("blobs"))?;
            sync_directory(path)
        })
    }

    fn engine(&self) -> &'static str {
        EngineKind::Sled.name()
    }

    fn flushes(&self) -> u64 {
        self.committer.flushes()
    }

    fn close(&self) {
        self.committer.stop();
        *self.tree.write() = None;
        *self.directory.lock() = None;
    }
}

impl Drop for SledStore {
    fn drop(&mut self) {
        self.close();
    }
}

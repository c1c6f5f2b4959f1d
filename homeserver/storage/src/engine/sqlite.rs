//! The SQLite engine: write-ahead log, one flush per commit group, a few readers.
//!
//! - One writer, owned by the committer's thread. All batches that wait become one transaction.
//! - Readers are opened when they are first needed and keep their prepared statements.
//! - `synchronous=FULL`: what is acknowledged survives a power cut. `secure_delete=ON`: what is deleted is
//!   overwritten; after [`Store::maintain`] nothing deleted is readable in the raw files.
//! - Tables of large values are rowid tables; small ones are `WITHOUT ROWID`, one tree instead of two.

mod error;
mod schema;
mod write;

use std::{
    fs::File,
    path::{Path, PathBuf},
};

use parking_lot::{Mutex, MutexGuard};
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, params};

use self::{
    error::store_error,
    schema::{Statements, TableStatements},
    write::SqliteWriter,
};
use crate::{
    Batch, KeyRange, MAX_PAGE, Mark, Order, Pending, Row, Store, StoreError, StreamPos, Table,
    engine::{
        EngineKind,
        committer::Committer,
        directory::{StoreDir, create_file, write_backup},
    },
};

/// How many readers there are at most.
const READERS: usize = 4;
/// How much each reader keeps in memory.
const READER_CACHE_KIB: i64 = 1024;

/// What a test or an operator may set.
#[derive(Clone, Copy, Debug, Default)]
pub struct SqliteOptions {
    /// The largest size of the database, in pages of 4 KiB; a commit beyond it is [`StoreError::Full`].
    pub max_pages: Option<u32>,
}

/// A store in one SQLite file.
#[derive(Debug)]
pub struct SqliteStore {
    path: PathBuf,
    statements: Statements,
    readers: [Mutex<Reader>; READERS],
    committer: Committer<SqliteWriter>,
    directory: Mutex<Option<StoreDir>>,
}

#[derive(Debug)]
enum Reader {
    Unopened,
    Open(Connection),
    Closed,
}

impl SqliteStore {
    /// The store in `dir` is open; see [`engine::open`](crate::engine::open).
    ///
    /// # Errors
    /// As [`engine::open`](crate::engine::open).
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        Self::open_with(dir, SqliteOptions::default())
    }

    /// As [`SqliteStore::open`], with options.
    ///
    /// # Errors
    /// As [`engine::open`](crate::engine::open).
    pub fn open_with(dir: &Path, options: SqliteOptions) -> Result<Self, StoreError> {
        let mut directory = StoreDir::open(dir, EngineKind::Sqlite)?;
        let path = directory.files();
        let (writer, position) = SqliteWriter::open(&path, directory.is_fresh(), options)?;
        directory.mark_ready()?;
        Ok(Self {
            path,
            statements: Statements::new(),
            readers: [const { Mutex::new(Reader::Unopened) }; READERS],
            committer: Committer::start(writer, position)?,
            directory: Mutex::new(Some(directory)),
        })
    }

    /// The first reader that is free; the last one if none is.
    fn reader(&self) -> Option<MutexGuard<'_, Reader>> {
        let free = self.readers.iter().find_map(Mutex::try_lock);
        free.or_else(|| self.readers.last().map(Mutex::lock))
    }

    fn read<T>(&self, query: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, StoreError> {
        let mut reader = self.reader().ok_or(StoreError::Closed)?;
        if matches!(*reader, Reader::Unopened) {
            *reader = Reader::Open(open_reader(&self.path).map_err(store_error)?);
        }
        match &*reader {
            Reader::Open(connection) => query(connection).map_err(store_error),
            Reader::Unopened | Reader::Closed => Err(StoreError::Closed),
        }
    }

    fn of(&self, table: Table) -> Result<&TableStatements, StoreError> {
        self.statements.of(table).ok_or_else(|| StoreError::Corrupt("a table is missing in the catalogue".to_owned()))
    }
}

fn open_reader(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(schema::BUSY_TIMEOUT)?;
    schema::keep_plans(&connection)?;
    connection.pragma_update(None, "cache_size", -READER_CACHE_KIB)?;
    connection.pragma_update(None, "mmap_size", 0)?;
    connection.set_prepared_statement_cache_capacity(schema::READ_STATEMENTS);
    Ok(connection)
}

fn get(connection: &Connection, statement: &str, key: &[u8]) -> rusqlite::Result<Option<Vec<u8>>> {
    let mut statement = connection.prepare_cached(statement)?;
    statement.query_row([key], |row| Ok(row.get_ref(0)?.as_blob()?.to_vec())).optional()
}

impl Store for SqliteStore {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let statements = self.of(table)?;
        self.read(|connection| get(connection, &statements.get, key))
    }

    fn get_many(&self, table: Table, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        let statements = self.of(table)?;
        self.read(|connection| keys.iter().map(|key| get(connection, &statements.get, key)).collect())
    }

    fn scan(&self, table: Table, range: &KeyRange, order: Order, limit: usize) -> Result<Vec<Row>, StoreError> {
        let statements = self.of(table)?;
        let limit = i64::try_from(limit.min(MAX_PAGE)).unwrap_or(0);
        let (bounded, open) = match order {
            Order::Ascending => (&statements.scan_up_to, &statements.scan_up),
            Order::Descending => (&statements.scan_down_to, &statements.scan_down),
        };
        self.read(|connection| {
            let mut statement = connection.prepare_cached(if range.end.is_some() { bounded } else { open })?;
            let mut found = match &range.end {
                Some(end) => statement.query(params![range.start, end, limit])?,
                None => statement.query(params![range.start, limit])?,
            };
            let mut rows = Vec::new();
            while let Some(row) = found.next()? {
                rows.push((row.get_ref(0)?.as_blob()?.to_vec(), row.get_ref(1)?.as_blob()?.to_vec()));
            }
            Ok(rows)
        })
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

    /// Gives free pages back and empties the write-ahead log; afterwards no deleted row is in the raw files.
    fn maintain(&self) -> Result<(), StoreError> {
        self.committer.run(SqliteWriter::maintain)
    }

    /// What `PRAGMA quick_check` finds: every page, and every tree's order.
    fn check(&self) -> Result<(), StoreError> {
        // A connection of its own: it takes long, and must not keep a reader.
        let connection = open_reader(&self.path).map_err(store_error)?;
        let found: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(store_error)?;
        if found == "ok" { Ok(()) } else { Err(StoreError::Corrupt(found.replace('\n', ", "))) }
    }

    /// Writes a compacted copy from one snapshot; commits go on meanwhile.
    fn backup(&self, target: &Path) -> Result<(), StoreError> {
        write_backup(target, EngineKind::Sqlite, |copy| {
            let name = copy.to_str().ok_or_else(|| StoreError::Engine("the target's path is not UTF-8".to_owned()))?;
            create_file(copy)?;
            // A connection of its own: a long copy must not keep a reader.
            let source = open_reader(&self.path).map_err(store_error)?;
            source.execute("VACUUM INTO ?1", [name]).map_err(store_error)?;
            Ok(File::open(copy)?.sync_all()?)
        })
    }

    fn engine(&self) -> &'static str {
        EngineKind::Sqlite.name()
    }

    fn flushes(&self) -> u64 {
        self.committer.flushes()
    }

    fn close(&self) {
        for reader in &self.readers {
            *reader.lock() = Reader::Closed;
        }
        // The writer closes last: it empties the write-ahead log.
        self.committer.stop();
        *self.directory.lock() = None;
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        self.close();
    }
}

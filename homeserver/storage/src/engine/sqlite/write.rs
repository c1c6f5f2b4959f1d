//! The writer: a group of batches becomes one transaction and one flush.

use std::{path::Path, time::Duration};

use rusqlite::{Connection, OpenFlags, OptionalExtension as _, Params, params};

use super::{
    SqliteOptions,
    error::store_error,
    schema::{self, Statements},
};
use crate::{
    Batch, CommitError, Committed, Expect, Op, StoreError, StreamPos,
    engine::{
        committer::{Outcome, Writer},
        directory, slots,
    },
};

const CACHE_KIB: i64 = 2 * 1024;
/// After how many commits the log is moved to the file, once nobody waits.
const LOG_COMMITS: u32 = 64;
/// How many pages the log may hold before a commit also moves them to the file, while somebody waits for it.
const LOG_PAGES: i64 = 4000;
/// What the log may keep of the disk once it was emptied.
const LOG_BYTES: i64 = 16 * 1024 * 1024;
/// How long maintenance waits for those who read.
const MAINTAIN_TIMEOUT: Duration = Duration::from_millis(500);
/// How many free pages one maintenance gives back to the file system.
const VACUUM_PAGES: u32 = 4096;

/// The connection that writes.
#[derive(Debug)]
pub(super) struct SqliteWriter {
    connection: Connection,
    statements: Statements,
    /// How many commits the log holds that are not in the file.
    logged: u32,
}

/// Why a group is not written.
#[derive(Debug)]
struct Failed {
    error: StoreError,
    /// Everything was applied, and the disk did not take it.
    at_the_end: bool,
}

impl From<StoreError> for Failed {
    fn from(error: StoreError) -> Self {
        Self { error, at_the_end: false }
    }
}

impl Failed {
    /// Whether some of the group may be written alone. A disk that failed at the end is not asked again at once.
    fn is_worth_parting(&self) -> bool {
        match self.error {
            StoreError::Full => true,
            StoreError::Engine(_) => !self.at_the_end,
            _ => false,
        }
    }
}

impl SqliteWriter {
    /// The file is open for writing, with every table there; also the position at which it stands.
    pub(super) fn open(path: &Path, fresh: bool, options: SqliteOptions) -> Result<(Self, StreamPos), StoreError> {
        if fresh {
            // An empty file is an empty database; made here, nobody else may read it or the log beside it.
            directory::create_file(path)?;
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags).map_err(store_error)?;
        connection.busy_timeout(schema::BUSY_TIMEOUT).map_err(store_error)?;
        if !fresh {
            check_owner(&connection, path)?;
        }
        let writer = Self { connection, statements: Statements::new(), logged: 0 };
        let position = writer.prepare(fresh, options).map_err(store_error)?;
        Ok((writer, position))
    }

    fn prepare(&self, fresh: bool, options: SqliteOptions) -> rusqlite::Result<StreamPos> {
        let connection = &self.connection;
        schema::keep_plans(connection)?;
        connection.set_prepared_statement_cache_capacity(schema::WRITE_STATEMENTS);
        if fresh {
            // Only an empty file takes it.
            connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
            connection.pragma_update(None, "application_id", schema::APPLICATION_ID)?;
        }
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "secure_delete", "ON")?;
        connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
        connection.pragma_update(None, "mmap_size", 0)?;
        connection.pragma_update(None, "temp_store", "MEMORY")?;
        connection.pragma_update(None, "wal_autocheckpoint", LOG_PAGES)?;
        connection.pragma_update(None, "journal_size_limit", LOG_BYTES)?;
        if let Some(pages) = options.max_pages {
            connection.pragma_update(None, "max_page_count", pages)?;
        }
        // In one transaction: a store never has only some of its tables.
        connection.execute_batch("BEGIN IMMEDIATE")?;
        connection.execute(schema::CREATE_META, [])?;
        for table in self.statements.all() {
            connection.execute(&table.create, [])?;
        }
        connection.execute_batch("COMMIT")?;
        let position: Option<i64> = connection.query_row(schema::READ_POSITION, [], |row| row.get(0)).optional()?;
        Ok(StreamPos(position.and_then(|number| u64::try_from(number).ok()).unwrap_or(0)))
    }

    /// Free pages are given back, and the log is empty.
    pub(super) fn maintain(&mut self) -> Result<(), StoreError> {
        // Commits wait behind this: a long read, a backup for example, must not hold them up for long.
        self.connection.busy_timeout(MAINTAIN_TIMEOUT).map_err(store_error)?;
        let busy = self.vacuum().and_then(|()| self.empty_log());
        self.connection.busy_timeout(schema::BUSY_TIMEOUT).map_err(store_error)?;
        if busy.map_err(store_error)? {
            return Err(StoreError::Engine("a long read kept the log from being emptied".to_owned()));
        }
        Ok(())
    }

    /// Whether someone kept the log from being emptied.
    fn empty_log(&self) -> rusqlite::Result<bool> {
        self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))
    }

    fn vacuum(&self) -> rusqlite::Result<()> {
        let mut statement = self.connection.prepare(&format!("PRAGMA incremental_vacuum({VACUUM_PAGES})"))?;
        let mut rows = statement.query([])?;
        // Each step gives one page back.
        while rows.next()?.is_some() {}
        Ok(())
    }

    /// Writes all batches in one transaction; an error means that none of them is written.
    fn commit_group(&self, batches: &mut [Batch], from: StreamPos) -> Result<Outcome, Failed> {
        let result = self.write_group(batches, from);
        if result.is_err() && !self.connection.is_autocommit() {
            // Some errors have ended the transaction already; where it still stands, nothing of it may stay.
            self.execute("ROLLBACK", []).map_err(store_error)?;
        }
        result
    }

    fn write_group(&self, batches: &mut [Batch], from: StreamPos) -> Result<Outcome, Failed> {
        self.execute("BEGIN IMMEDIATE", []).map_err(store_error)?;
        let mut answers = Vec::with_capacity(batches.len());
        let mut position = from;
        let mut changed = false;
        for batch in batches {
            let first = if batch.positions == 0 { position.0 } else { position.0.saturating_add(1) };
            let committed = Committed { first: StreamPos(first), count: batch.positions };
            let answer = self.write_batch(batch, committed)?;
            if answer.is_ok() {
                position = StreamPos(position.0.saturating_add(u64::from(batch.positions)));
                changed |= !batch.ops.is_empty() || batch.positions > 0;
            }
            answers.push(answer);
        }
        if position != from {
            let number =
                i64::try_from(position.0).map_err(|_| StoreError::Engine("positions are used up".to_owned()))?;
            self.execute(schema::WRITE_POSITION, [number]).map_err(store_error)?;
        }
        self.execute(if changed { "COMMIT" } else { "ROLLBACK" }, [])
            .map_err(|error| Failed { error: store_error(error), at_the_end: true })?;
        Ok(Outcome { answers, position, flushes: u64::from(changed) })
    }

    /// The batch is part of the transaction, or was refused and has left no trace in it. The outer error ends the transaction.
    ///
    /// No savepoint: each would copy every page that the batch changes, for an error that nearly never comes.
    fn write_batch(
        &self,
        batch: &mut Batch,
        committed: Committed,
    ) -> Result<Result<Committed, CommitError>, StoreError> {
        if let Err(error) = slots::fill(batch, committed.first) {
            return Ok(Err(error.into()));
        }
        for (index, expect) in batch.expect.iter().enumerate() {
            if !self.holds(expect)? {
                return Ok(Err(CommitError::Conflict(index)));
            }
        }
        for op in &batch.ops {
            self.apply(op).map_err(store_error)?;
        }
        Ok(Ok(committed))
    }

    fn holds(&self, expect: &Expect) -> Result<bool, StoreError> {
        let (table, key, wanted) = match expect {
            Expect::Absent { table, key } => (*table, key, None),
            Expect::Equals { table, key, value } => (*table, key, Some(value.as_slice())),
        };
        let statements = self.statements.of(table).ok_or(StoreError::Closed)?;
        let check = || -> rusqlite::Result<bool> {
            let mut statement = self.connection.prepare_cached(&statements.get)?;
            let found = statement.query_row([key], |row| Ok(Some(row.get_ref(0)?.as_blob()?) == wanted)).optional()?;
            Ok(found.unwrap_or(wanted.is_none()))
        };
        check().map_err(store_error)
    }

    fn apply(&self, op: &Op) -> rusqlite::Result<()> {
        let (Op::Put { table, .. } | Op::Delete { table, .. } | Op::DeleteRange { table, .. }) = op;
        let statements = self.statements.of(*table).ok_or(rusqlite::Error::InvalidQuery)?;
        match op {
            Op::Put { key, value, .. } => self.execute(&statements.put, params![key, value]),
            Op::Delete { key, .. } => self.execute(&statements.delete, [key]),
            Op::DeleteRange { range, .. } => match &range.end {
                Some(end) => self.execute(&statements.delete_to, params![range.start, end]),
                None => self.execute(&statements.delete_from, [&range.start]),
            },
        }
    }

    fn execute(&self, statement: &str, parameters: impl Params) -> rusqlite::Result<()> {
        self.connection.prepare_cached(statement)?.execute(parameters).map(drop)
    }
}

impl Writer for SqliteWriter {
    fn commit(&mut self, mut batches: Vec<Batch>, from: StreamPos) -> Outcome {
        self.logged = self.logged.saturating_add(1);
        match self.commit_group(&mut batches, from) {
            Ok(outcome) => outcome,
            // On a full disk the small may still find room where all together did not; and what one batch brought upon the
            // group is its own to bear.
            Err(failed) if batches.len() > 1 && failed.is_worth_parting() => self.commit_one_by_one(batches, from),
            Err(Failed { error, .. }) => {
                tracing::error!(%error, batches = batches.len(), "a commit failed");
                let answers = batches.iter().map(|_| Err(CommitError::Store(error.again()))).collect();
                Outcome { answers, position: from, flushes: 0 }
            }
        }
    }

    /// The log is moved to the file before a commit must do it: that would take as long as several flushes.
    fn rest(&mut self) {
        if self.logged < LOG_COMMITS {
            return;
        }
        self.logged = 0;
        if let Err(error) = self.connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())) {
            tracing::debug!(%error, "the log stays: a later commit moves it to the file");
        }
    }
}

impl SqliteWriter {
    fn commit_one_by_one(&self, batches: Vec<Batch>, from: StreamPos) -> Outcome {
        let mut all = Outcome { answers: Vec::with_capacity(batches.len()), position: from, flushes: 0 };
        for mut batch in batches {
            match self.commit_group(std::slice::from_mut(&mut batch), all.position) {
                Ok(one) => {
                    all.answers.extend(one.answers);
                    all.position = one.position;
                    all.flushes = all.flushes.saturating_add(one.flushes);
                }
                Err(Failed { error, .. }) => all.answers.push(Err(error.into())),
            }
        }
        all
    }
}

/// The file is one of Matron's.
///
/// # Errors
/// [`StoreError::Foreign`] when it is someone else's, [`StoreError::Corrupt`] when it is no database; it was only read.
fn check_owner(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let id: i32 = connection.query_row("PRAGMA application_id", [], |row| row.get(0)).map_err(store_error)?;
    if id == schema::APPLICATION_ID {
        Ok(())
    } else {
        Err(StoreError::Foreign(format!("{} is not a store of Matron", path.display())))
    }
}

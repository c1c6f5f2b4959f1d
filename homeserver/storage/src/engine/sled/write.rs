//! The writer: a group of batches becomes one sled batch and one flush of the file itself.

use std::{collections::BTreeMap, fs::File, path::Path, sync::Arc};

use parking_lot::RwLock;

use super::{FreeBytes, META_POSITION, RESERVE_BYTES, Tables, find, large::Rests, store_error};
use crate::{
    Batch, CommitError, Committed, Expect, Op, StoreError, StreamPos,
    engine::{
        committer::{Outcome, Writer},
        slots,
    },
};

/// How many bytes one batch of an export holds.
const EXPORT_BYTES: usize = 1024 * 1024;

/// Changes that are not in the tree yet: `None` is a removal.
type Changes = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

pub(super) struct SledWriter {
    db: sled::Db,
    visible: Arc<RwLock<Option<sled::Db>>>,
    tables: Tables,
    rests: Rests,
    /// sled's own flush stops at the page cache; these two reach the disk.
    file: File,
    blobs: File,
    free: FreeBytes,
    /// A write or flush failed: nobody knows what the disk holds until the store is opened again.
    failed: bool,
}

impl SledWriter {
    pub(super) fn new(
        db: sled::Db,
        visible: Arc<RwLock<Option<sled::Db>>>,
        tables: Tables,
        path: &Path,
        free: FreeBytes,
    ) -> Result<Self, StoreError> {
        let (file, blobs) = (File::open(path.join("db"))?, File::open(path.join("blobs"))?);
        let rests = Rests::load(&db)?;
        Ok(Self { db, rests, visible, tables, file, blobs, free, failed: false })
    }

    /// Everything applied is on the disk.
    pub(super) fn sync(&self) -> Result<(), StoreError> {
        self.db.flush().map_err(store_error)?;
        self.file.sync_data()?;
        // Large values are files of their own; sled flushes them but not their names.
        self.blobs.sync_all()?;
        Ok(())
    }

    /// All rows, and the store's own, are in `copy`.
    pub(super) fn export(&self, copy: &sled::Db) -> Result<(), StoreError> {
        let (mut batch, mut bytes) = (sled::Batch::default(), 0_usize);
        for row in self.db.iter() {
            let (key, value) = row.map_err(store_error)?;
            bytes = bytes.saturating_add(key.len()).saturating_add(value.len());
            batch.insert(key, value);
            if bytes >= EXPORT_BYTES {
                copy.apply_batch(std::mem::take(&mut batch)).map_err(store_error)?;
                bytes = 0;
            }
        }
        copy.apply_batch(batch).map_err(store_error)?;
        copy.flush().map_err(store_error).map(drop)
    }

    /// What the batch changes, or why it is refused; nothing is applied yet.
    fn stage(&self, batch: &mut Batch, first: StreamPos, group: &Changes) -> Result<Changes, CommitError> {
        slots::fill(batch, first)?;
        for (index, expect) in batch.expect.iter().enumerate() {
            let (table, key, wanted) = match expect {
                Expect::Absent { table, key } => (*table, key, None),
                Expect::Equals { table, key, value } => (*table, key, Some(value.as_slice())),
            };
            if !self.holds(&self.tables.key(table, key), wanted, group)? {
                return Err(CommitError::Conflict(index));
            }
        }
        let mut changes = Changes::new();
        for op in &batch.ops {
            match op {
                Op::Put { table, key, value, .. } => {
                    changes.insert(self.tables.key(*table, key), Some(value.clone()));
                }
                Op::Delete { table, key } => {
                    changes.insert(self.tables.key(*table, key), None);
                }
                Op::DeleteRange { table, range } => {
                    let Some(bounds) = self.tables.bounds(*table, range) else { continue };
                    let mut doomed: Vec<Vec<u8>> = Vec::new();
                    for key in self.db.range(bounds.clone()).keys() {
                        doomed.push(key.map_err(store_error)?.to_vec());
                    }
                    doomed.extend(group.range(bounds.clone()).map(|(key, _)| key.clone()));
                    doomed.extend(changes.range(bounds).map(|(key, _)| key.clone()));
                    changes.extend(doomed.into_iter().map(|key| (key, None)));
                }
            }
        }
        Ok(changes)
    }

    fn holds(&self, key: &[u8], wanted: Option<&[u8]>, group: &Changes) -> Result<bool, StoreError> {
        if let Some(change) = group.get(key) {
            return Ok(change.as_deref() == wanted);
        }
        Ok(find(&self.db, key)?.as_deref() == wanted)
    }

    fn check_room(&self, group: &Changes) -> Result<(), StoreError> {
        let values = group.iter().map(|(key, value)| key.len().saturating_add(value.as_ref().map_or(0, Vec::len)));
        let bytes = u64::try_from(values.fold(0, usize::saturating_add)).unwrap_or(u64::MAX);
        // sled rewrites whole pages: a change may cost a multiple of itself.
        let needed = RESERVE_BYTES.saturating_add(bytes.saturating_mul(4));
        if (self.free)()? < needed { Err(StoreError::Full) } else { Ok(()) }
    }

    fn write(&mut self, group: Changes, position: StreamPos) -> Result<(), StoreError> {
        self.check_room(&group)?;
        let mut batch = sled::Batch::default();
        for (key, value) in group {
            self.rests.put(&self.db, &mut batch, key, value)?;
        }
        batch.insert(META_POSITION, &position.0.to_be_bytes());
        {
            let _alone = self.visible.write();
            self.db.apply_batch(batch).map_err(store_error)?;
        }
        self.sync()
    }
}

impl Writer for SledWriter {
    fn commit(&mut self, batches: Vec<Batch>, from: StreamPos) -> Outcome {
        if self.failed {
            let answers = batches.iter().map(|_| Err(StoreError::Closed.into())).collect();
            return Outcome { answers, position: from, flushes: 0 };
        }
        let mut group = Changes::new();
        let mut answers = Vec::with_capacity(batches.len());
        let mut position = from;
        for mut batch in batches {
            let first = if batch.positions == 0 { position.0 } else { position.0.saturating_add(1) };
            let committed = Committed { first: StreamPos(first), count: batch.positions };
            answers.push(self.stage(&mut batch, committed.first, &group).map(|changes| {
                group.extend(changes);
                position = StreamPos(position.0.saturating_add(u64::from(batch.positions)));
                committed
            }));
        }
        if group.is_empty() && position == from {
            return Outcome { answers, position, flushes: 0 };
        }
        match self.write(group, position) {
            Ok(()) => Outcome { answers, position, flushes: 1 },
            Err(error) => {
                if !matches!(error, StoreError::Full) {
                    tracing::error!(%error, "a commit failed; the store is closed until it is opened again");
                    // INVARIANT: nobody reads on from what may never have reached the disk.
                    *self.visible.write() = None;
                    self.failed = true;
                }
                let answers =
                    answers.into_iter().map(|answer| answer.and_then(|_| Err(error.again().into()))).collect();
                Outcome { answers, position: from, flushes: 0 }
            }
        }
    }
}

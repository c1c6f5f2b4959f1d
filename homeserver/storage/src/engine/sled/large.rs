//! Values that are larger than one row may be: the row holds their beginning, rows behind all tables the rest.
//!
//! A row of exactly [`ROW_BYTES`] may go on; whether it does is read from the tree. Nothing else says so, so a store from
//! before values could be larger is read as it is.

use std::collections::BTreeSet;

use super::store_error;
use crate::StoreError;

/// How much of a value is in one row, bytes. sled writes what is much larger into files of their own.
pub(super) const ROW_BYTES: usize = 256 * 1024;
/// The byte before the rests; tables end before it.
const RESTS: u8 = u8::MAX;

/// Where the rest of the value under this key of the tree begins.
fn rest_prefix(key: &[u8]) -> Vec<u8> {
    // A length first: no key's rest is mistaken for another's.
    let length = u32::try_from(key.len()).unwrap_or(u32::MAX);
    [&[RESTS][..], &length.to_be_bytes(), key].concat()
}

/// The value under this key of the tree, of which its row holds `beginning`.
pub(super) fn whole(db: &sled::Db, key: &[u8], beginning: &[u8]) -> Result<Vec<u8>, StoreError> {
    let mut value = beginning.to_vec();
    if value.len() == ROW_BYTES {
        for row in db.scan_prefix(rest_prefix(key)).values() {
            value.extend_from_slice(&row.map_err(store_error)?);
        }
    }
    Ok(value)
}

/// Which keys have a rest, so that it goes when they change.
#[derive(Debug, Default)]
pub(super) struct Rests(BTreeSet<Vec<u8>>);

impl Rests {
    /// All of the tree.
    pub(super) fn load(db: &sled::Db) -> Result<Self, StoreError> {
        let mut found = BTreeSet::new();
        for row in db.scan_prefix([RESTS]).keys() {
            let row = row.map_err(store_error)?;
            let key = row.get(5..row.len().saturating_sub(4)).unwrap_or_default();
            if !found.contains(key) {
                found.insert(key.to_vec());
            }
        }
        Ok(Self(found))
    }

    /// The batch makes this the value under `key`, and leaves nothing of what was there before.
    pub(super) fn put(
        &mut self,
        db: &sled::Db,
        batch: &mut sled::Batch,
        key: Vec<u8>,
        value: Option<Vec<u8>>,
    ) -> Result<(), StoreError> {
        if self.0.remove(&key) {
            for row in db.scan_prefix(rest_prefix(&key)).keys() {
                batch.remove(row.map_err(store_error)?);
            }
        }
        let Some(value) = value else {
            batch.remove(key);
            return Ok(());
        };
        let mut parts = value.chunks(ROW_BYTES);
        batch.insert(key.as_slice(), parts.next().unwrap_or_default());
        for (index, part) in (0_u32..).zip(parts) {
            batch.insert([rest_prefix(&key), index.to_be_bytes().to_vec()].concat(), part);
            if index == 0 {
                self.0.insert(key.clone());
            }
        }
        Ok(())
    }
}

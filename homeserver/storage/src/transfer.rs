//! Moving a whole store: from engine to engine, and through a file.

use crate::{Batch, KeyRange, Order, Store, StoreError, StreamPos, tables::CATALOGUE};

/// How many rows one page and one batch hold.
const PAGE: usize = 256;

/// Everything in `from`, and its position, is in `to`; the number of rows.
///
/// The caller sees to it that nobody writes to either meanwhile.
///
/// # Errors
/// [`StoreError::Foreign`] when `to` is not empty, else as the two engines fail.
pub fn copy(from: &dyn Store, to: &dyn Store) -> Result<u64, StoreError> {
    check_empty(to)?;
    let mut count = 0_u64;
    for info in CATALOGUE {
        let mut range = KeyRange::all();
        loop {
            let page = from.scan(info.table, &range, Order::Ascending, PAGE)?;
            let Some((last, _)) = page.last() else { break };
            range = range.after(last);
            count = count.saturating_add(u64::try_from(page.len()).unwrap_or(0));
            let mut batch = Batch::new();
            for (key, value) in page {
                batch.put(info.table, key, value);
            }
            commit(to, batch)?;
        }
    }
    advance(to, from.position())?;
    Ok(count)
}

/// Nothing is in the store.
pub(crate) fn check_empty(store: &dyn Store) -> Result<(), StoreError> {
    for info in CATALOGUE {
        if !store.scan(info.table, &KeyRange::all(), Order::Ascending, 1)?.is_empty() {
            return Err(StoreError::Foreign("the target store is not empty".to_owned()));
        }
    }
    Ok(())
}

/// The store stands at `position` or later.
pub(crate) fn advance(store: &dyn Store, position: StreamPos) -> Result<(), StoreError> {
    while store.position() < position {
        let missing = position.0.saturating_sub(store.position().0);
        let positions = u32::try_from(missing).unwrap_or(u32::MAX);
        commit(store, Batch { positions, ..Batch::new() })?;
    }
    Ok(())
}

pub(crate) fn commit(store: &dyn Store, batch: Batch) -> Result<(), StoreError> {
    match store.submit(batch).wait() {
        Ok(_) => Ok(()),
        Err(crate::CommitError::Store(error)) => Err(error),
        Err(crate::CommitError::Conflict(_)) => Err(StoreError::Engine("a copy met an expectation".to_owned())),
    }
}

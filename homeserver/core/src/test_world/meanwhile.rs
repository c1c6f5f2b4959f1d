//! What others commit between somebody's look and their own commit.

use std::{ops::Range, path::Path, sync::Arc};

use matron_storage::{Batch, KeyRange, Mark, Order, Pending, Row, Store, StoreError, StreamPos, Table};
use parking_lot::Mutex;

type Deed = Arc<Mutex<dyn FnMut(&dyn Store) + Send>>;

/// A store in which something happens just before a commit, or several.
pub(super) struct Meanwhile {
    store: Arc<dyn Store>,
    /// What happens, and before which of the next commits.
    deed: Mutex<Option<(Range<usize>, Deed)>>,
}

impl std::fmt::Debug for Meanwhile {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Meanwhile")
    }
}

impl Meanwhile {
    pub(super) fn before(store: Arc<dyn Store>) -> Arc<Self> {
        Arc::new(Self { store, deed: Mutex::default() })
    }

    /// Before each of these comes this; the next commit is number 0.
    pub(super) fn happens(&self, commits: Range<usize>, deed: impl FnMut(&dyn Store) + Send + 'static) {
        *self.deed.lock() = Some((commits, Arc::new(Mutex::new(deed))));
    }

    fn due(&self) -> Option<Deed> {
        let mut held = self.deed.lock();
        let (commits, deed) = held.as_mut()?;
        let due = commits.contains(&0).then(|| Arc::clone(deed));
        *commits = commits.start.saturating_sub(1)..commits.end.saturating_sub(1);
        if commits.end == 0 {
            *held = None;
        }
        due
    }
}

impl Store for Meanwhile {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.store.get(table, key)
    }

    fn scan(&self, table: Table, range: &KeyRange, order: Order, limit: usize) -> Result<Vec<Row>, StoreError> {
        self.store.scan(table, range, order, limit)
    }

    fn submit(&self, batch: Batch) -> Pending {
        if let Some(deed) = self.due() {
            (deed.lock())(&*self.store);
        }
        self.store.submit(batch)
    }

    fn position(&self) -> StreamPos {
        self.store.position()
    }

    fn mark(&self, table: Table, prefix: &[u8]) -> Mark {
        self.store.mark(table, prefix)
    }

    fn maintain(&self) -> Result<(), StoreError> {
        self.store.maintain()
    }

    fn backup(&self, target: &Path) -> Result<(), StoreError> {
        self.store.backup(target)
    }

    fn engine(&self) -> &'static str {
        self.store.engine()
    }

    fn close(&self) {
        self.store.close();
    }
}

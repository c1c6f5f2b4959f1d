//! What others commit between somebody's look and their own commit.

use std::{path::Path, sync::Arc};

use matron_storage::{Batch, KeyRange, Mark, Order, Pending, Row, Store, StoreError, StreamPos, Table};
use parking_lot::Mutex;

type Deed = Box<dyn FnOnce(&dyn Store) + Send>;

/// A store in which something happens once, just before a commit.
pub(super) struct Meanwhile {
    store: Arc<dyn Store>,
    /// What happens, and how many commits come first.
    deed: Mutex<Option<(usize, Deed)>>,
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

    /// After so many commits and before the next comes this.
    pub(super) fn happens(&self, commits: usize, deed: impl FnOnce(&dyn Store) + Send + 'static) {
        *self.deed.lock() = Some((commits, Box::new(deed)));
    }

    fn due(&self) -> Option<Deed> {
        let mut deed = self.deed.lock();
        match &mut *deed {
            Some((commits @ 1.., _)) => {
                *commits -= 1;
                None
            }
            _ => deed.take().map(|(_, deed)| deed),
        }
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
            deed(&*self.store);
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

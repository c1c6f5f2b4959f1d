//! A store that its server loses at once when the server is killed.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use matron_storage::{Batch, Key, KeyRange, Mark, Order, Pending, Row, Store, StoreError, StreamPos, Table};

/// The way to a store, until it is cut: what a dead server still tries to read or write then fails, and what it wrote
/// before stays.
#[derive(Debug)]
pub(crate) struct Cable {
    store: Arc<dyn Store>,
    is_cut: AtomicBool,
    /// How many batches go through before it is cut.
    left: AtomicUsize,
}

impl Cable {
    pub(crate) fn to(store: Arc<dyn Store>) -> Arc<Self> {
        Arc::new(Self { store, is_cut: AtomicBool::new(false), left: AtomicUsize::new(usize::MAX) })
    }

    /// Nothing goes through any more; gives what the next server begins with.
    pub(crate) fn cut(&self) -> Arc<dyn Store> {
        self.is_cut.store(true, Ordering::SeqCst);
        // What was on its way has arrived: batches are committed in their order.
        let mut last = Batch::new();
        last.put(Table::Misc, Key::new().text("cut"), Vec::new());
        drop(self.store.submit(last).wait());
        Arc::clone(&self.store)
    }

    /// So many more batches go through, and nothing after them.
    pub(crate) fn cut_after(&self, batches: usize) {
        self.left.store(batches, Ordering::SeqCst);
    }

    /// Whether nothing goes through any more.
    pub(crate) fn is_cut(&self) -> bool {
        self.is_cut.load(Ordering::SeqCst)
    }

    fn live(&self) -> Result<&Arc<dyn Store>, StoreError> {
        if self.is_cut() { Err(StoreError::Closed) } else { Ok(&self.store) }
    }
}

impl Store for Cable {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.live()?.get(table, key)
    }

    fn get_many(&self, table: Table, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        self.live()?.get_many(table, keys)
    }

    fn scan(&self, table: Table, range: &KeyRange, order: Order, limit: usize) -> Result<Vec<Row>, StoreError> {
        self.live()?.scan(table, range, order, limit)
    }

    fn submit(&self, batch: Batch) -> Pending {
        if self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_err() {
            self.is_cut.store(true, Ordering::SeqCst);
        }
        match self.live() {
            Ok(store) => store.submit(batch),
            // Nobody will answer: that is how a pending commit tells that the engine is gone.
            Err(_) => Pending::channel().1,
        }
    }

    fn position(&self) -> StreamPos {
        self.store.position()
    }

    fn mark(&self, table: Table, prefix: &[u8]) -> Mark {
        self.store.mark(table, prefix)
    }

    fn maintain(&self) -> Result<(), StoreError> {
        self.live()?.maintain()
    }

    fn backup(&self, target: &Path) -> Result<(), StoreError> {
        self.live()?.backup(target)
    }

    fn engine(&self) -> &'static str {
        self.store.engine()
    }

    fn close(&self) {
        if let Ok(store) = self.live() {
            store.close();
        }
    }
}

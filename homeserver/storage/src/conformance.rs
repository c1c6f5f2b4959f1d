//! What every engine must pass, as checks that panic where one does not.
//!
//! `conformance_suite!(name, subject)` makes a test of each, in a module `name`; `subject` is an expression
//! that gives a fresh [`Subject`].
#![expect(clippy::unwrap_used, clippy::panic, reason = "a check ends with a panic where an engine fails")]

mod atomicity;
mod lifetime;
mod order;
mod positions;

pub use self::{atomicity::*, lifetime::*, order::*, positions::*};

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{Batch, CommitError, Committed, KeyRange, Order, Row, Store, Table};

/// An engine under test, with a place of its own.
pub struct Subject {
    /// Opens the store, the same one each time unless it lives in memory.
    pub open: Box<dyn Fn() -> Arc<dyn Store>>,
    /// Whether a store that was closed can be opened again.
    pub lasts: bool,
    /// Whether nothing deleted is readable in the raw files after [`Store::maintain`].
    pub erases: bool,
    /// Where the raw files are.
    pub files: PathBuf,
    /// An empty directory for copies.
    pub scratch: PathBuf,
}

impl fmt::Debug for Subject {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Subject").field("files", &self.files).finish_non_exhaustive()
    }
}

impl Subject {
    fn start(&self) -> Arc<dyn Store> {
        (self.open)()
    }

    /// The store after its process ended and began again; the same one, if it lives in memory.
    fn restart(&self, store: Arc<dyn Store>) -> Arc<dyn Store> {
        if !self.lasts {
            return store;
        }
        store.close();
        drop(store);
        self.start()
    }
}

fn commit(store: &dyn Store, build: impl FnOnce(&mut Batch)) -> Result<Committed, CommitError> {
    let mut batch = Batch::new();
    build(&mut batch);
    store.submit(batch).wait()
}

fn all(store: &dyn Store, table: Table) -> Vec<Row> {
    store.scan(table, &KeyRange::all(), Order::Ascending, usize::MAX).unwrap()
}

fn key(number: u64) -> Vec<u8> {
    number.to_be_bytes().to_vec()
}

/// How often `needle` is in the files below `path`.
fn count_in_files(path: &Path, needle: &[u8]) -> usize {
    if !path.is_dir() {
        let bytes = std::fs::read(path).unwrap();
        return bytes.windows(needle.len()).filter(|part| *part == needle).count();
    }
    let entries = std::fs::read_dir(path).unwrap();
    entries.map(|entry| count_in_files(&entry.unwrap().path(), needle)).sum()
}

/// A module of tests, one for each check of the suite.
#[macro_export]
macro_rules! conformance_suite {
    ($module:ident, $subject:expr) => {
        $crate::conformance_suite!(@checks $module, $subject,
            batch_is_applied_whole_or_not_at_all,
            expectations_hold_or_the_batch_is_refused,
            readers_never_see_half_a_batch,
            rivals_of_one_key_win_one_after_the_other,
            conflicting_batch_is_refused_alone,
            later_batches_of_a_group_see_the_earlier_ones,
            operations_of_a_batch_apply_in_their_order,
            range_deletion_sees_what_the_group_wrote,
            scans_go_in_byte_order_both_ways,
            pages_are_bounded_and_follow_each_other,
            ranges_with_extreme_bytes_hold_exactly_their_keys,
            empty_keys_and_values_are_values,
            tables_do_not_share_keys,
            large_values_come_back_whole,
            large_values_go_without_a_rest,
            positions_are_contiguous_and_outlive_the_process,
            refused_batches_take_no_positions,
            slots_hold_the_positions_of_their_batch,
            slot_out_of_bounds_refuses_its_batch_alone,
            everything_up_to_the_position_is_visible,
            what_is_remembered_under_an_unmoved_mark_is_not_stale,
            waiting_batches_share_a_flush,
            what_was_acknowledged_is_there_after_reopening,
            closed_store_refuses_and_never_hangs,
            deleted_rows_leave_no_trace_after_maintenance,
            backup_is_a_store_of_its_own,
            dump_loads_into_another_store,
            empty_batch_answers_with_the_position,
        );
    };
    (@checks $module:ident, $subject:expr, $($check:ident,)*) => {
        mod $module {
            #[expect(unused_imports, reason = "the expression for the subject may not need all of them")]
            use super::*;
            $(
                #[test]
                fn $check() {
                    $crate::conformance::$check(&$subject);
                }
            )*
        }
    };
}

//! What SQLite's errors mean to a caller.

use rusqlite::ErrorCode;

use crate::StoreError;

/// SQLite's error in the words of the store. Its texts name tables and pages, never keys or values.
pub(super) fn store_error(error: rusqlite::Error) -> StoreError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => StoreError::Full,
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => StoreError::Corrupt(error.to_string()),
        _ => StoreError::Engine(error.to_string()),
    }
}

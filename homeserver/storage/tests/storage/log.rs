//! What SQLite's log costs those who wait for a commit.

use std::{fs, path::Path, time::Duration};

use matron_storage::{Batch, Key, Store, Table, engine::sqlite::SqliteStore};

/// How large the file is that the log is moved to, bytes.
fn file_bytes(dir: &Path) -> u64 {
    let is_file = |path: &Path| !path.to_string_lossy().ends_with("-wal") && !path.to_string_lossy().ends_with("-shm");
    let files = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).filter(|path| is_file(path));
    files.map(|path| fs::metadata(path).unwrap().len()).max().unwrap()
}

#[test]
fn the_log_is_moved_to_the_file_while_nobody_waits_long_before_it_is_full() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(dir.path()).unwrap();
    let before = file_bytes(dir.path());
    for number in 0..100 {
        let mut batch = Batch::new();
        batch.put(Table::Misc, Key::new().number(number), vec![7; 4096]);
        store.submit(batch).wait().unwrap();
    }
    for _ in 0..12_000 {
        if file_bytes(dir.path()) >= before + 60 * 4096 {
            store.close();
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("the log stays");
}

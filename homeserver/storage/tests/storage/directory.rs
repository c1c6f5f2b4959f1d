//! Whose directory it is, and what happens when the disk is full.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use matron_storage::{
    Batch, CommitError, EngineKind, KeyRange, KeyRing, KeyRingError, MasterKey, Order, Store, StoreError, Table,
    engine::{
        sled::SledStore,
        sqlite::{SqliteOptions, SqliteStore},
    },
    open,
};

const ON_DISK: [EngineKind; 2] = [EngineKind::Sqlite, EngineKind::Sled];

/// Every file below `path`, but for the lock.
fn files(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if !path.ends_with("store.lock") {
            found.insert(path.display().to_string(), fs::read(&path).unwrap());
        }
    }
    found
}

fn refused(kind: EngineKind, dir: &Path, part: &str) {
    let before = files(dir);
    match open(kind, dir) {
        Err(StoreError::Foreign(text) | StoreError::Corrupt(text)) => assert!(text.contains(part), "{text}"),
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("{kind} opened what is {part}"),
    }
    assert!(files(dir) == before, "something was overwritten");
}

#[test]
fn engines_are_named() {
    for kind in EngineKind::ALL {
        assert_eq!(kind.to_string().parse::<EngineKind>().unwrap(), kind);
    }
    assert!("rocksdb".parse::<EngineKind>().unwrap_err().to_string().contains("sqlite"));
    assert_eq!(EngineKind::default(), EngineKind::Sqlite);
}

#[test]
fn foreign_or_newer_stores_are_refused_and_left_alone() {
    for (kind, other) in [(EngineKind::Sqlite, EngineKind::Sled), (EngineKind::Sled, EngineKind::Sqlite)] {
        let dir = tempfile::tempdir().unwrap();
        open(kind, dir.path()).unwrap().close();
        refused(other, dir.path(), kind.name());
        let marker = dir.path().join("store.marker");
        let text = fs::read_to_string(&marker).unwrap();
        fs::write(&marker, text.replace("format 1", "format 2")).unwrap();
        refused(kind, dir.path(), "format 2");
        for wrong in ["", "something else", "matron store\nformat 1\nengine mysql\nstate ready\n"] {
            fs::write(&marker, wrong).unwrap();
            refused(kind, dir.path(), "not written by Matron");
        }
        fs::write(&marker, [0xFF, 0xFE]).unwrap();
        refused(kind, dir.path(), "not written by Matron");
        fs::remove_file(&marker).unwrap();
        refused(kind, dir.path(), "without the marker");
        fs::write(&marker, &text).unwrap();
        open(kind, dir.path()).unwrap().close();
    }
}

#[test]
fn missing_or_damaged_database_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    open(EngineKind::Sqlite, dir.path()).unwrap().close();
    let file = dir.path().join("store.sqlite");
    let whole = fs::read(&file).unwrap();
    fs::remove_file(&file).unwrap();
    refused(EngineKind::Sqlite, dir.path(), "missing");
    fs::write(&file, vec![b'x'; whole.len()]).unwrap();
    refused(EngineKind::Sqlite, dir.path(), "not a database");
    fs::write(&file, b"").unwrap();
    refused(EngineKind::Sqlite, dir.path(), "not a store of Matron");
    fs::write(&file, whole).unwrap();
    open(EngineKind::Sqlite, dir.path()).unwrap().close();
}

#[test]
fn creation_that_was_cut_off_begins_again() {
    for kind in ON_DISK {
        let dir = tempfile::tempdir().unwrap();
        let marker = format!("matron store\nformat 1\nengine {kind}\nstate creating\n");
        fs::write(dir.path().join("store.marker"), marker).unwrap();
        match kind {
            EngineKind::Sled => {
                fs::create_dir(dir.path().join("store.sled")).unwrap();
                fs::write(dir.path().join("store.sled/db"), b"half").unwrap();
            }
            _ => fs::write(dir.path().join("store.sqlite"), b"half").unwrap(),
        }
        let store = open(kind, dir.path()).unwrap();
        store.submit(Batch { positions: 1, ..Batch::new() }).wait().unwrap();
        store.close();
        assert_eq!(open(kind, dir.path()).unwrap().position().0, 1);
    }
}

#[test]
fn one_process_at_a_time_holds_a_store() {
    for kind in ON_DISK {
        let dir = tempfile::tempdir().unwrap();
        let store = open(kind, dir.path()).unwrap();
        assert!(matches!(open(kind, dir.path()), Err(StoreError::Foreign(text)) if text.contains("another process")));
        drop(store);
        open(kind, dir.path()).unwrap().close();
    }
}

fn put(store: &dyn Store, number: u64) -> Result<(), CommitError> {
    let mut batch = Batch { positions: 1, ..Batch::new() };
    batch.put(Table::EventPdu, number.to_be_bytes(), vec![b'x'; 20_000]).put(Table::Misc, number.to_be_bytes(), "");
    store.submit(batch).wait().map(drop)
}

fn count(store: &dyn Store, table: Table) -> u64 {
    u64::try_from(store.scan(table, &KeyRange::all(), Order::Ascending, usize::MAX).unwrap().len()).unwrap()
}

fn is_full(result: &Result<(), CommitError>) -> bool {
    matches!(result, Err(CommitError::Store(StoreError::Full)))
}

#[test]
fn full_disk_refuses_batches_and_the_store_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open_with(dir.path(), SqliteOptions { max_pages: Some(700) }).unwrap();
    let mut written = 0;
    let refused = loop {
        match put(&store, written) {
            Ok(()) => written += 1,
            Err(error) => break Err(error),
        }
        assert!(written < 1000);
    };
    assert!(is_full(&refused), "{refused:?}");
    assert!(written > 50);
    // Nothing of the refused batch is there, reads go on, and what is small still fits.
    assert_eq!([Table::EventPdu, Table::Misc].map(|table| count(&store, table)), [written; 2]);
    assert_eq!(store.position().0, written);
    let mixed: Vec<_> = (0..20_u64)
        .map(|number| {
            let mut batch = Batch::new();
            let size = if number % 2 == 0 { 1_000_000 } else { 1 };
            batch.put(Table::UserProfile, number.to_be_bytes(), vec![b'y'; size]);
            store.submit(batch)
        })
        .collect();
    for (number, pending) in mixed.into_iter().enumerate() {
        assert_eq!(is_full(&pending.wait().map(drop)), number % 2 == 0, "batch {number}");
    }
    // Room returns.
    let mut batch = Batch::new();
    batch.delete_range(Table::EventPdu, KeyRange::between(0_u64.to_be_bytes(), 20_u64.to_be_bytes()));
    store.submit(batch).wait().unwrap();
    for number in 2000..2010 {
        put(&store, number).unwrap();
    }
    store.maintain().unwrap();
    drop(store);
    let store = open(EngineKind::Sqlite, dir.path()).unwrap();
    assert_eq!(count(&*store, Table::EventPdu), written - 10);
    put(&*store, 3000).unwrap();
}

#[test]
fn nearly_full_disk_refuses_batches_before_sled_is_harmed() {
    let dir = tempfile::tempdir().unwrap();
    let free = Arc::new(AtomicU64::new(u64::MAX));
    let told = Arc::clone(&free);
    let store = SledStore::open_with(dir.path(), Arc::new(move || Ok(told.load(Ordering::Relaxed)))).unwrap();
    put(&store, 1).unwrap();
    free.store(1_000_000, Ordering::Relaxed);
    assert!(is_full(&put(&store, 2)));
    assert_eq!((count(&store, Table::EventPdu), store.position().0), (1, 1));
    free.store(u64::MAX, Ordering::Relaxed);
    put(&store, 2).unwrap();
    assert_eq!((count(&store, Table::Misc), store.position().0), (2, 2));
}

#[test]
fn nobody_else_may_read_a_store() {
    for kind in ON_DISK {
        let dir = tempfile::tempdir().unwrap();
        let (place, backup) = (dir.path().join("store"), dir.path().join("backup"));
        let store = open(kind, &place).unwrap();
        put(&*store, 1).unwrap();
        store.backup(&backup).unwrap();
        for place in [&place, &backup] {
            assert_eq!(fs::metadata(place).unwrap().permissions().mode() & 0o077, 0);
            for entry in fs::read_dir(place).unwrap() {
                let entry = entry.unwrap();
                assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o077, 0, "{}", entry.path().display());
            }
        }
    }
}

#[test]
#[ignore = "needs an empty file system of 20 MB, named by MATRON_TEST_SMALL_DISK"]
fn small_disk_fills_and_recovers() {
    let disk = PathBuf::from(std::env::var("MATRON_TEST_SMALL_DISK").unwrap());
    let ballast = disk.join("ballast");
    fs::write(&ballast, vec![0; 10_000_000]).unwrap();
    let store = open(EngineKind::Sqlite, &disk.join("store")).unwrap();
    let ring = KeyRing::open(&disk.join("keys"), MasterKey::from_bytes([1; 32])).unwrap();
    let sealed = ring.seal("!a", 0, b"", b"kept").unwrap();
    let mut written = 0;
    let mut fill = || {
        loop {
            match put(&*store, written) {
                Ok(()) => written += 1,
                Err(error) => break assert!(is_full(&Err(error))),
            }
        }
        written
    };
    let first = fill();
    assert_eq!(count(&*store, Table::Misc), first);
    fs::write(disk.join("more"), vec![0; 100_000_000]).unwrap_err();
    let many: Vec<_> = (1..50_000).map(|bucket| ("!a", bucket)).collect();
    assert!(matches!(ring.prepare(&many), Err(KeyRingError::Full)));
    assert!(matches!(store.backup(&disk.join("backup")), Err(StoreError::Full | StoreError::Io(_))));
    assert!(!disk.join("backup").exists());
    assert_eq!(ring.open_sealed("!a", 0, b"", &sealed).unwrap(), b"kept");
    assert!(ring.destroy("!a", 0).unwrap(), "destruction needs no room");
    let mut batch = Batch::new();
    batch.delete_range(Table::EventPdu, KeyRange::all());
    fs::remove_file(&ballast).unwrap();
    store.maintain().unwrap();
    store.submit(batch).wait().unwrap();
    store.maintain().unwrap();
    put(&*store, 999_999).unwrap();
    ring.seal("!b", 0, b"", b"").unwrap();
    store.close();
    let store = open(EngineKind::Sqlite, &disk.join("store")).unwrap();
    assert_eq!(count(&*store, Table::Misc), first + 1);
}

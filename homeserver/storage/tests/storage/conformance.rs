//! Every engine passes the suite.

use matron_storage::{EngineKind, conformance::Subject, open};

fn subject(kind: EngineKind) -> Subject {
    // Kept until the process ends and removed by the next test run's cleaning of the temporary directory.
    let dir = tempfile::tempdir().unwrap();
    let (files, scratch) = (dir.path().join("store"), dir.path().join("scratch"));
    std::fs::create_dir(&scratch).unwrap();
    let place = files.clone();
    Subject {
        open: Box::new(move || {
            let _kept = &dir;
            open(kind, &place).unwrap()
        }),
        lasts: kind != EngineKind::Memory,
        erases: kind == EngineKind::Sqlite,
        files,
        scratch,
    }
}

matron_storage::conformance_suite!(memory, subject(EngineKind::Memory));
matron_storage::conformance_suite!(sqlite, subject(EngineKind::Sqlite));
matron_storage::conformance_suite!(sled, subject(EngineKind::Sled));

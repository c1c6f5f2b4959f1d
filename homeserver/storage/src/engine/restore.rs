//! A store out of its backup.

use std::{
    fs::{self, DirBuilder, File},
    os::unix::fs::DirBuilderExt,
    path::Path,
};

use crate::{
    StoreError,
    engine::{
        EngineKind,
        directory::{StoreDir, engine_of, sync_directory},
    },
};

/// The store in `dir` is the one that [`Store::backup`](crate::Store::backup) wrote to `backup`; its engine.
///
/// # Errors
/// [`StoreError::Foreign`] when `backup` is no backup or `dir` holds a store already; nothing is overwritten.
pub fn restore(backup: &Path, dir: &Path) -> Result<EngineKind, StoreError> {
    let engine = engine_of(backup)?
        .ok_or_else(|| StoreError::Foreign(format!("{} is not a backup of Matron", backup.display())))?;
    let mut target = StoreDir::open(dir, engine)?;
    if !target.is_fresh() {
        return Err(StoreError::Foreign(format!("{} holds a store already", dir.display())));
    }
    let to = target.files();
    let name = to.file_name().unwrap_or_default();
    let from = backup.join(name);
    let mut log = from.clone().into_os_string();
    log.push("-wal");
    if fs::metadata(&log).is_ok_and(|metadata| metadata.len() > 0) {
        return Err(StoreError::Foreign(format!("{} is a store in use, not a backup", backup.display())));
    }
    copy(&from, &to)?;
    target.mark_ready()?;
    Ok(engine)
}

/// A durable copy of a file, or of a directory and what is in it.
fn copy(from: &Path, to: &Path) -> Result<(), StoreError> {
    if from.is_dir() {
        DirBuilder::new().mode(0o700).create(to)?;
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            copy(&entry.path(), &to.join(entry.file_name()))?;
        }
        sync_directory(to)
    } else {
        fs::copy(from, to)?;
        Ok(File::open(to)?.sync_all()?)
    }
}

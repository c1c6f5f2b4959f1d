//! `matron restore DIR`: a backup into an empty data directory; keys that are there stay.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use matron_storage::{Store, StoreError};

use super::say;
use crate::{
    config::Config,
    data::{self, DataError, Layout},
    failure::Failure,
    operator::{backup, manifest::Manifest},
};

/// What may be in the data directory already: keys that survived.
const KEYS: [&str; 3] = ["keyring", "master.key", "signing.key"];

/// # Errors
/// [`Failure::Document`] when the directory is no backup or a damaged one, or the data directory is in use; nothing is
/// changed then.
pub(super) fn run(from: &Path, config: &Config) -> Result<(), Failure> {
    let manifest = Manifest::read(from)?;
    let target = config.server.data_dir.as_path();
    if manifest.server_name != config.server.server_name {
        return Err(Failure::Document(format!(
            "this is a backup of {}, and the configuration says {}",
            manifest.server_name, config.server.server_name
        )));
    }
    check_empty(target)?;
    if !manifest.verify(from)? {
        say("This backup was made by a version that did not write down its files: its database alone is checked.");
    }
    data::make_private_dir(target)?;
    let (source, layout) = (Layout(from), Layout(target));
    if let Err(failure) = place(&manifest, config, &source, &layout) {
        // None of it was there before.
        for made in [layout.store(), layout.media(), staging(&layout)] {
            drop(std::fs::remove_dir_all(made));
        }
        return Err(failure);
    }
    data::write_new(&layout.server_name(), 0o600, manifest.server_name.as_bytes())?;
    say(format!("The backup of {} is in {}; its database was checked.", manifest.server_name, target.display()));
    if !layout.key_ring().exists() {
        say(
            "There is no key ring: put the one of the lost server into the data directory, or begin an empty one with `matron keyring new`; what the lost one sealed stays unreadable then.",
        );
    }
    if config.server.master_key.command.is_none() && !config.server.master_key_path().exists() {
        say(format!("Put the master key into {} before the first start.", config.server.master_key_path().display()));
    }
    Ok(())
}

/// Everything is in its place, and the database was read as a whole.
fn place(manifest: &Manifest, config: &Config, source: &Layout<'_>, layout: &Layout<'_>) -> Result<(), Failure> {
    if manifest.engine == config.server.storage.engine.name() {
        restore_store(manifest, source, &layout.store())?.close();
    } else {
        convert(manifest, config, source, layout)?;
    }
    backup::copy_tree(&source.media(), &layout.media()).map_err(Failure::io("cannot copy the media"))?;
    let signing_key = config.server.signing_key_path();
    for (kept, wanted) in [(source.0.join("signing.key"), signing_key), (source.key_ring(), layout.key_ring())] {
        if kept.exists() && !wanted.exists() {
            std::fs::copy(&kept, &wanted).map_err(|source| {
                // Half a key would be taken for one that survived.
                drop(std::fs::remove_file(&wanted));
                Failure::Io { what: format!("cannot copy {}", kept.display()), source }
            })?;
        }
    }
    Ok(())
}

/// The backup's store is in `to`, whole, and open.
///
/// # Errors
/// [`Failure::Document`] when it is not what the backup was made of.
fn restore_store(manifest: &Manifest, from: &Layout<'_>, to: &Path) -> Result<Arc<dyn Store>, Failure> {
    let damaged = |error: String| {
        Failure::Document(format!("the database of this backup is damaged and nothing was restored: {error}"))
    };
    let broken = |error: StoreError| match error {
        StoreError::Full => Failure::from(DataError::Store { path: to.to_owned(), source: error }),
        error => damaged(error.to_string()),
    };
    let engine = matron_storage::restore(&from.store(), to).map_err(broken)?;
    if engine.name() != manifest.engine {
        return Err(damaged(format!("it is of the engine {engine}, and the backup says {}", manifest.engine)));
    }
    let store = matron_storage::open(engine, to).map_err(broken)?;
    store.check().map_err(broken)?;
    if store.position().0 < manifest.position {
        return Err(damaged(format!(
            "it ends at {}, and was at {} when it was written",
            store.position().0,
            manifest.position
        )));
    }
    Ok(store)
}

/// Where a store of another engine is on its way into this one: the backup itself is never opened.
fn staging(layout: &Layout<'_>) -> PathBuf {
    layout.0.join("store.restoring")
}

fn check_empty(target: &Path) -> Result<(), Failure> {
    let entries = match std::fs::read_dir(target) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(DataError::Io { path: target.to_owned(), source }.into()),
    };
    for entry in entries {
        let entry = entry.map_err(|source| DataError::Io { path: target.to_owned(), source })?;
        if !KEYS.iter().any(|key| entry.file_name() == *key) {
            return Err(Failure::Document(format!(
                "{} holds data ({}); a backup goes into an empty directory",
                target.display(),
                entry.file_name().to_string_lossy()
            )));
        }
    }
    Ok(())
}

/// Another engine than the backup's: every row is read from the one and written to the other.
fn convert(manifest: &Manifest, config: &Config, from: &Layout<'_>, to: &Layout<'_>) -> Result<(), Failure> {
    let staging = staging(to);
    let source = restore_store(manifest, from, &staging)?;
    let target = data::open_store(config.server.storage.engine, &to.store())?;
    let copied = matron_storage::transfer::copy(&*source, &*target)
        .map_err(|source| DataError::Store { path: to.store(), source })?;
    source.close();
    target.close();
    std::fs::remove_dir_all(&staging).map_err(Failure::io(format!("cannot remove {}", staging.display())))?;
    say(format!("{copied} rows were written to {}.", config.server.storage.engine.name()));
    Ok(())
}

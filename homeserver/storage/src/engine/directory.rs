//! The store's directory: one process at a time, and a marker that says whose it is.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{ErrorKind, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use crate::{StoreError, engine::EngineKind, lock};

/// The format that this version writes. A newer one is refused; an older one would be migrated here.
const FORMAT: u32 = 1;
const MARKER: &str = "store.marker";
const LOCK: &str = "store.lock";
const HEAD: &str = "matron store";
/// The files of an engine in the directory, by engine.
const FILES: &[(EngineKind, &str)] = &[(EngineKind::Sqlite, "store.sqlite"), (EngineKind::Sled, "store.sled")];

/// A directory that this process alone holds, until it is dropped.
#[derive(Debug)]
pub(crate) struct StoreDir {
    path: PathBuf,
    engine: EngineKind,
    fresh: bool,
    // Held for its lock.
    _lock: File,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The engine's files may be unfinished; no write was ever acknowledged.
    Creating,
    /// The engine's files are there.
    Ready,
}

impl StoreDir {
    /// The directory is locked for this process and holds a store of `engine`, or room for a new one.
    ///
    /// # Errors
    /// [`StoreError::Foreign`] when another process holds it, or when it holds anything else.
    pub(crate) fn open(path: &Path, engine: EngineKind) -> Result<Self, StoreError> {
        DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        let lock = take_lock(path)?;
        let files = path.join(file_name(engine));
        let fresh = match read_marker(path)? {
            Some((found, _)) if found != engine => {
                return Err(StoreError::Foreign(format!(
                    "{} holds a store of the engine {found}, but {engine} was asked for",
                    path.display()
                )));
            }
            Some((_, State::Ready)) if !files.exists() => {
                return Err(StoreError::Corrupt(format!("{} is missing", files.display())));
            }
            Some((_, State::Ready)) => false,
            Some((_, State::Creating)) => {
                // No write was acknowledged before the marker said that the store is ready.
                remove_files(path, engine)?;
                true
            }
            None => {
                if let Some((_, name)) = FILES.iter().find(|(_, name)| path.join(name).exists()) {
                    return Err(StoreError::Foreign(format!(
                        "{} is there without the marker that Matron writes beside it",
                        path.join(name).display()
                    )));
                }
                write_marker(path, engine, State::Creating)?;
                true
            }
        };
        Ok(Self { path: path.to_owned(), engine, fresh, _lock: lock })
    }

    /// Whether the engine must make its files.
    pub(crate) fn is_fresh(&self) -> bool {
        self.fresh
    }

    /// Where the engine's file or directory is.
    pub(crate) fn files(&self) -> PathBuf {
        self.path.join(file_name(self.engine))
    }

    /// The engine's files are whole: from now on the store counts.
    pub(crate) fn mark_ready(&mut self) -> Result<(), StoreError> {
        if self.fresh {
            sync_directory(&self.path)?;
            write_marker(&self.path, self.engine, State::Ready)?;
            self.fresh = false;
        }
        Ok(())
    }
}

/// Which engine's store is in `path`; `None` if there is none.
///
/// # Errors
/// [`StoreError::Foreign`] when the marker is not one of this version.
pub(crate) fn engine_of(path: &Path) -> Result<Option<EngineKind>, StoreError> {
    Ok(read_marker(path)?.and_then(|(engine, state)| (state == State::Ready).then_some(engine)))
}

/// An empty file, for this user alone.
pub(crate) fn create_file(path: &Path) -> Result<(), StoreError> {
    OpenOptions::new().create_new(true).write(true).mode(0o600).open(path)?;
    Ok(())
}

/// A directory, for this user alone.
pub(crate) fn create_directory(path: &Path) -> Result<(), StoreError> {
    Ok(DirBuilder::new().mode(0o700).create(path)?)
}

/// What `write` makes of a new store in `target`; nothing is left there if it fails.
///
/// # Errors
/// [`StoreError::Foreign`] when `target` exists, else as `write` fails.
pub(crate) fn write_backup(
    target: &Path,
    engine: EngineKind,
    write: impl FnOnce(&Path) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    if target.exists() {
        return Err(StoreError::Foreign("the target of a backup must not exist yet".to_owned()));
    }
    let written = StoreDir::open(target, engine)
        .and_then(|mut directory| write(&directory.files()).and_then(|()| directory.mark_ready()));
    if written.is_err() {
        // Half a backup is none; it is ours to remove, since there was nothing before.
        drop(fs::remove_dir_all(target));
    }
    written
}

/// The names in a directory are durable.
pub(crate) fn sync_directory(path: &Path) -> Result<(), StoreError> {
    Ok(File::open(path)?.sync_all()?)
}

fn file_name(engine: EngineKind) -> &'static str {
    FILES.iter().find(|(kind, _)| *kind == engine).map_or("store.memory", |(_, name)| name)
}

fn take_lock(path: &Path) -> Result<File, StoreError> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path.join(LOCK))?;
    if lock::acquire(&file)? {
        Ok(file)
    } else {
        Err(StoreError::Foreign(format!("another process uses the store in {}", path.display())))
    }
}

fn read_marker(path: &Path) -> Result<Option<(EngineKind, State)>, StoreError> {
    let text = match fs::read_to_string(path.join(MARKER)) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) if error.kind() == ErrorKind::InvalidData => return Err(unreadable(path)),
        Err(error) => return Err(error.into()),
    };
    let mut lines = text.lines();
    let (head, format) = (lines.next(), lines.next().and_then(|line| line.strip_prefix("format ")));
    let format: u32 = match (head, format.and_then(|number| number.parse().ok())) {
        (Some(HEAD), Some(number)) => number,
        _ => return Err(unreadable(path)),
    };
    if format != FORMAT {
        return Err(StoreError::Foreign(format!(
            "the store in {} has format {format}; this version of Matron knows format {FORMAT}",
            path.display()
        )));
    }
    let engine = lines.next().and_then(|line| line.strip_prefix("engine ")).and_then(|name| name.parse().ok());
    let state = match lines.next() {
        Some("state creating") => Some(State::Creating),
        Some("state ready") => Some(State::Ready),
        _ => None,
    };
    engine.zip(state).map(Some).ok_or_else(|| unreadable(path))
}

fn unreadable(path: &Path) -> StoreError {
    StoreError::Foreign(format!("{} was not written by Matron", path.join(MARKER).display()))
}

fn write_marker(path: &Path, engine: EngineKind, state: State) -> Result<(), StoreError> {
    let state = match state {
        State::Creating => "creating",
        State::Ready => "ready",
    };
    let unfinished = path.join("store.marker.new");
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&unfinished)?;
    file.write_all(format!("{HEAD}\nformat {FORMAT}\nengine {engine}\nstate {state}\n").as_bytes())?;
    file.sync_all()?;
    fs::rename(&unfinished, path.join(MARKER))?;
    sync_directory(path)
}

fn remove_files(path: &Path, engine: EngineKind) -> Result<(), StoreError> {
    let files = path.join(file_name(engine));
    if files.is_dir() {
        fs::remove_dir_all(&files)?;
    } else {
        for suffix in ["", "-wal", "-shm", "-journal"] {
            let mut name = files.clone().into_os_string();
            name.push(suffix);
            match fs::remove_file(&name) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
                _ => {}
            }
        }
    }
    Ok(())
}

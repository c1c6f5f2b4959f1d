//! The data directory: server name, keys and store are opened together or not at all, and never overwritten.

use std::{
    fs::{DirBuilder, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use matron_core::{
    Core, Parts,
    appservices::Registration,
    ports::{Clock, SystemClock},
};
use matron_room::SigningKey;
use matron_storage::{
    Store, StoreError, StreamPos,
    engine::EngineKind,
    keyring::{KeyRing, KeyRingError, MasterKey, MasterKeyError},
};
use ruma::{OwnedServerName, ServerName};
use zeroize::Zeroizing;

use crate::config::{Config, Engine};

/// Why the data directory cannot be used; nothing in it was changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DataError {
    /// A file or folder cannot be read or made.
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    /// The directory belongs to a server of another name.
    #[error("{} belongs to the server `{found}`, and the configuration says `{wanted}`; a server's name cannot be changed", path.display())]
    OtherServer { path: PathBuf, found: String, wanted: String },
    /// A key file that others on the machine can read or change.
    #[error("{} has mode {mode:04o}; a key must be readable by its owner alone: chmod 600", path.display())]
    OpenKey { path: PathBuf, mode: u32 },
    /// A key file that holds no key.
    #[error("{}: {source}", path.display())]
    BadKey { path: PathBuf, source: matron_room::KeyError },
    /// There is data, but its key is gone.
    #[error("{} is missing, but there is data that needs it: put the key back", path.display())]
    KeyGone { path: PathBuf },
    /// A server has run here, and its key ring is gone.
    #[error(
        "the key ring {} is missing, and without it nothing that was said can be read: put it back (backups hold it only \
         if they were made `--with-key-ring`); if it is lost for good, `matron keyring new` begins an empty one",
        path.display()
    )]
    KeyRingGone { path: PathBuf },
    /// There is a key ring where a new one was asked for.
    #[error("the key ring {} is there; nothing was changed", path.display())]
    KeyRingThere { path: PathBuf },
    /// No server has run here: its first start makes what it needs.
    #[error("no server has run in {}; the first start makes its key ring", path.display())]
    NothingHere { path: PathBuf },
    /// A server has run here, and a part of it is gone.
    #[error("{} is missing, but {} says that a server has run here: put it back, or start in an empty directory", path.display(), server.display())]
    Gone { path: PathBuf, server: PathBuf },
    /// The database refused.
    #[error("the database in {}: {source}", path.display())]
    Store { path: PathBuf, source: StoreError },
    /// The key ring or its master key refused.
    #[error("the key ring {}: {source}", path.display())]
    KeyRing { path: PathBuf, source: KeyRingError },
    /// The master key cannot be had.
    #[error("the master key {from}: {source}")]
    MasterKey { from: String, source: MasterKeyError },
    /// The outgoing side cannot be set up.
    #[error("federation: {0}")]
    Net(#[from] matron_net::NetError),
    /// An application service's registration is no good.
    #[error("{}: {what}", path.display())]
    Registration { path: PathBuf, what: String },
    /// The use cases refused their settings or what is on disk.
    #[error("{0}")]
    Core(#[from] matron_core::Error),
}

/// Where things are in a data directory.
pub(crate) struct Layout<'a>(pub(crate) &'a Path);

impl Layout<'_> {
    pub(crate) fn store(&self) -> PathBuf {
        self.0.join("store")
    }
    pub(crate) fn key_ring(&self) -> PathBuf {
        self.0.join("keyring")
    }
    pub(crate) fn media(&self) -> PathBuf {
        self.0.join("media")
    }
    pub(crate) fn server_name(&self) -> PathBuf {
        self.0.join("server_name")
    }
    pub(crate) fn socket(&self) -> PathBuf {
        self.0.join("operator.sock")
    }
}

/// The use cases over the opened data directory.
///
/// # Errors
/// [`DataError`]; what was there before is as it was.
pub(crate) fn open(config: &Config) -> Result<Arc<Core>, DataError> {
    let dir = config.server.data_dir.as_path();
    let layout = Layout(dir);
    let server_name = server_name(config)?;
    make_private_dir(dir)?;
    let new_here = check_server_name(&layout, &server_name)?;
    if !new_here {
        check_whole(config, &layout)?;
    }

    let open_keys = || -> Result<_, DataError> {
        let key_ring_path = layout.key_ring();
        let master_key = master_key(config, key_ring_path.exists())?;
        let key_ring = Arc::new(
            KeyRing::open(&key_ring_path, master_key)
                .map_err(|source| DataError::KeyRing { path: key_ring_path.clone(), source })?,
        );
        Ok((key_ring, Arc::new(signing_key(&config.server.signing_key_path())?)))
    };
    let open_store = || open_store(config.server.storage.engine, &layout.store());
    // An engine may write while it opens: whoever has the wrong keys does not come so far. A new directory that holds
    // somebody else's store is not given keys.
    let (store, (key_ring, signing_key)) = if new_here {
        let store = open_store()?;
        // A first start that was cut off has written nothing yet.
        if store.position() > StreamPos::default() {
            return Err(DataError::Gone { path: layout.server_name(), server: layout.store() });
        }
        (store, open_keys()?)
    } else {
        let keys = open_keys()?;
        (open_store()?, keys)
    };
    make_private_dir(&layout.media())?;
    if new_here {
        write_new(&layout.server_name(), 0o600, server_name.as_bytes())?;
    }

    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let federation = crate::serve::federation(config, &server_name, &signing_key, &clock)?;
    let appservices = registrations(config)?;
    Ok(Core::new(Parts {
        settings: config.settings.clone(),
        server_name,
        store,
        keyring: key_ring,
        signing_key,
        clock,
        federation,
        media_dir: layout.media(),
        appservices,
    })?)
}

/// What every server that has run has is there: a folder that was not mounted is not taken for a new server.
///
/// # Errors
/// [`DataError::Gone`], naming what is missing.
fn check_whole(config: &Config, layout: &Layout<'_>) -> Result<(), DataError> {
    let is_kept = config.server.storage.engine != Engine::Memory;
    for path in [is_kept.then(|| layout.store()), Some(config.server.signing_key_path())].into_iter().flatten() {
        if !path.exists() {
            return Err(DataError::Gone { path, server: layout.server_name() });
        }
    }
    if is_kept && !layout.key_ring().exists() {
        return Err(DataError::KeyRingGone { path: layout.key_ring() });
    }
    Ok(())
}

/// An empty key ring is in the data directory of a server that has lost its own; a lost master key is made with it.
///
/// # Errors
/// [`DataError`], also where there is a key ring or never was a server; nothing was changed then.
pub(crate) fn new_key_ring(config: &Config) -> Result<PathBuf, DataError> {
    let layout = Layout(&config.server.data_dir);
    if check_server_name(&layout, &server_name(config)?)? {
        return Err(DataError::NothingHere { path: layout.0.to_owned() });
    }
    let path = layout.key_ring();
    if path.exists() {
        return Err(DataError::KeyRingThere { path });
    }
    match KeyRing::open(&path, master_key(config, false)?) {
        Ok(_made) => Ok(path),
        Err(source) => Err(DataError::KeyRing { path, source }),
    }
}

/// The application services that the configuration names, none of them twice.
///
/// # Errors
/// [`DataError::Registration`] naming the file.
fn registrations(config: &Config) -> Result<Vec<Registration>, DataError> {
    let mut paths = config.server.appservices.clone();
    if let Some(path) = &config.server.appservice_config {
        let own = crate::service::prepare(path)?.registration;
        if !paths.contains(&own) {
            paths.push(own);
        }
    }
    let mut found: Vec<Registration> = Vec::new();
    for path in &paths {
        let refused = |what: String| DataError::Registration { path: path.clone(), what };
        let text = std::fs::read_to_string(path).map_err(|source| DataError::Io { path: path.clone(), source })?;
        let registration = Registration::parse(&text).map_err(|error| refused(error.to_string()))?;
        if found.iter().any(|other| other.id == registration.id || other.as_token == registration.as_token) {
            return Err(refused("another registration has the same id or token".to_owned()));
        }
        found.push(registration);
    }
    Ok(found)
}

/// The store alone, for commands that need nothing else.
///
/// # Errors
/// [`DataError::Store`].
pub(crate) fn open_store(engine: Engine, path: &Path) -> Result<Arc<dyn Store>, DataError> {
    let kind = match engine {
        Engine::Memory => EngineKind::Memory,
        Engine::Sqlite => EngineKind::Sqlite,
        Engine::Sled => EngineKind::Sled,
    };
    matron_storage::engine::open(kind, path).map_err(|source| DataError::Store { path: path.to_owned(), source })
}

fn server_name(config: &Config) -> Result<OwnedServerName, DataError> {
    // The configuration's own check has refused anything else already.
    ServerName::parse(&config.server.server_name).map(|name| name.to_owned()).map_err(|_| DataError::OtherServer {
        path: config.server.data_dir.clone(),
        found: "?".to_owned(),
        wanted: config.server.server_name.clone(),
    })
}

/// Whether the directory has no server name yet.
fn check_server_name(layout: &Layout<'_>, wanted: &ServerName) -> Result<bool, DataError> {
    let path = layout.server_name();
    match std::fs::read_to_string(&path) {
        Ok(found) if found.trim() == wanted.as_str() => Ok(false),
        Ok(found) => Err(DataError::OtherServer {
            path: layout.0.to_owned(),
            found: found.trim().chars().take(255).collect(),
            wanted: wanted.to_string(),
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(source) => Err(DataError::Io { path, source }),
    }
}

fn master_key(config: &Config, has_data: bool) -> Result<MasterKey, DataError> {
    if let Some(command) = &config.server.master_key.command {
        let from = "by `master_key.command`".to_owned();
        return MasterKey::from_command(command).map_err(|source| DataError::MasterKey { from, source });
    }
    let path = config.server.master_key_path();
    let found = if has_data && !path.exists() {
        return Err(DataError::KeyGone { path });
    } else {
        MasterKey::from_file(&path)
    };
    found.map_err(|source| DataError::MasterKey { from: path.display().to_string(), source })
}

/// The server's signing key, made when the file is missing.
///
/// # Errors
/// [`DataError`] for a file that others can read, or that holds no key.
pub(crate) fn signing_key(path: &Path) -> Result<SigningKey, DataError> {
    match read_key_file(path)? {
        Some(text) => {
            SigningKey::from_key_file(&text).map_err(|source| DataError::BadKey { path: path.to_owned(), source })
        }
        None => {
            let key = SigningKey::generate(random_seed());
            write_new(path, 0o600, key.to_key_file().as_bytes())?;
            Ok(key)
        }
    }
}

/// 32 bytes from the operating system's generator.
pub(crate) fn random_seed() -> [u8; 32] {
    rand::random()
}

/// The text of a key file that only its owner can read; `None` when there is none.
///
/// # Errors
/// [`DataError::OpenKey`] when others can read or change it.
pub(crate) fn read_key_file(path: &Path) -> Result<Option<Zeroizing<String>>, DataError> {
    let io_error = |source| DataError::Io { path: path.to_owned(), source };
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(io_error(source)),
    };
    let mode = file.metadata().map_err(io_error)?.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(DataError::OpenKey { path: path.to_owned(), mode });
    }
    let mut text = Zeroizing::new(String::new());
    (&mut file).take(64 * 1024).read_to_string(&mut text).map_err(io_error)?;
    Ok(Some(text))
}

/// A new file with this content is on the disk, whole; an existing one is left alone.
///
/// # Errors
/// [`DataError::Io`], also when the file exists.
pub(crate) fn write_new(path: &Path, mode: u32, content: &[u8]) -> Result<(), DataError> {
    let write = || -> io::Result<()> {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.new", std::process::id()));
        let draft = parent.join(name);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&draft)?;
        let written = file
            .write_all(content)
            .and_then(|()| file.sync_all())
            // A link fails when the name is taken, a rename would overwrite.
            .and_then(|()| std::fs::hard_link(&draft, path));
        std::fs::remove_file(&draft)?;
        written?;
        File::open(parent)?.sync_all()
    };
    write().map_err(|source| DataError::Io { path: path.to_owned(), source })
}

/// The folder exists; if it had to be made, only its owner can enter it.
///
/// # Errors
/// [`DataError::Io`].
pub(crate) fn make_private_dir(path: &Path) -> Result<(), DataError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| DataError::Io { path: path.to_owned(), source })
}

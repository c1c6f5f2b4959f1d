//! The data directory: sealed files, written whole or not at all.
//!
//! Every file is AES-256-GCM under a key that lives beside it with mode 0600, bound to its own name.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aes_gcm::aead::{Aead as _, Payload};
use aes_gcm::{Aes256Gcm, KeyInit as _};
use rand::Rng;
use thiserror::Error;
use zeroize::Zeroizing;

const KEY_FILE: &str = "appservice.key";
const KEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 12;
/// Format of a sealed file.
const MAGIC: &[u8; 4] = b"MAS1";
/// Largest file that is read, in bytes.
const MAX_FILE_BYTES: u64 = 256 * 1024 * 1024;

/// Why the data directory cannot be used.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The file system refused.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The key file can be read by others, or is not 32 bytes.
    #[error("the key file must have mode 0600 and 32 bytes; it was left as it is")]
    Key,
    /// Sealed files without the key they were sealed with.
    #[error("the data directory holds sealed files but no key file; nothing was overwritten")]
    KeyMissing,
    /// The file was sealed with another key, or is corrupt.
    #[error("the file {0:?} is corrupt or was sealed with another key; nothing was overwritten")]
    Sealed(String),
    /// A name that would leave the directory.
    #[error("the file name is not allowed")]
    Name,
}

fn io_error(what: &'static str) -> impl FnOnce(io::Error) -> StoreError {
    move |source| StoreError::Io { what, source }
}

/// A directory of sealed files.
#[derive(Clone)]
pub struct Store {
    root: PathBuf,
    cipher: Arc<Aes256Gcm>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("root", &self.root).finish_non_exhaustive()
    }
}

impl Store {
    /// The directory and its key exist afterwards, readable by their owner alone.
    ///
    /// # Errors
    /// [`StoreError`]; a key is never replaced, nor made where sealed files already lie.
    pub fn open<R: Rng + ?Sized>(root: &Path, random: &mut R) -> Result<Self, StoreError> {
        fs::create_dir_all(root).map_err(io_error("create the data directory"))?;
        fs::set_permissions(root, fs::Permissions::from_mode(0o700))
            .map_err(io_error("restrict the data directory"))?;
        let path = root.join(KEY_FILE);
        let key = match File::open(&path) {
            Ok(file) => read_key(file)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if has_sealed_files(root)? {
                    return Err(StoreError::KeyMissing);
                }
                make_key(root, &path, random)?
            }
            Err(error) => return Err(io_error("open the key file")(error)),
        };
        let cipher = Aes256Gcm::new_from_slice(key.as_slice()).map_err(|_length| StoreError::Key)?;
        Ok(Self { root: root.to_owned(), cipher: Arc::new(cipher) })
    }

    fn path(&self, name: &str) -> Result<PathBuf, StoreError> {
        let sound = !name.is_empty()
            && name.len() <= 200
            && name.split('/').all(|part| {
                !part.is_empty()
                    && !part.starts_with('.')
                    && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.=".contains(&b))
            });
        if sound { Ok(self.root.join(name)) } else { Err(StoreError::Name) }
    }

    /// The content of a file, or `None` where there is none.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn load(&self, name: &str) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
        let file = match File::open(self.path(name)?) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io_error("open a sealed file")(error)),
        };
        let mut sealed = Vec::new();
        file.take(MAX_FILE_BYTES).read_to_end(&mut sealed).map_err(io_error("read a sealed file"))?;
        self.unseal(name, &sealed).map(Some)
    }

    /// The file has this content afterwards, on disk; a crash leaves the old or the new one.
    ///
    /// # Errors
    /// [`StoreError`]; the old file stands then.
    pub fn write(&self, name: &str, content: &[u8]) -> Result<(), StoreError> {
        let path = self.path(name)?;
        let directory = path.parent().ok_or(StoreError::Name)?;
        fs::create_dir_all(directory).map_err(io_error("create a directory"))?;
        let sealed = self.seal(name, content)?;
        write_whole(directory, &path, &sealed).map_err(io_error("write a sealed file"))
    }

    /// The file is gone afterwards.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn remove(&self, name: &str) -> Result<(), StoreError> {
        match fs::remove_file(self.path(name)?) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error("remove a sealed file")(error)),
            _ => Ok(()),
        }
    }

    /// Names of the files in a directory, in order of their names.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn list(&self, directory: &str) -> Result<Vec<String>, StoreError> {
        let entries = match fs::read_dir(self.path(directory)?) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(io_error("list a directory")(error)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let name = entry.map_err(io_error("list a directory"))?.file_name();
            // What a crash left half-written starts with a dot.
            if let Some(name) = name.to_str().filter(|name| !name.starts_with('.')) {
                names.push(format!("{directory}/{name}"));
            }
        }
        names.sort();
        Ok(names)
    }

    fn seal(&self, name: &str, content: &[u8]) -> Result<Vec<u8>, StoreError> {
        let mut nonce = [0u8; NONCE_BYTES];
        rand::rng().fill_bytes(&mut nonce);
        let payload = Payload { msg: content, aad: name.as_bytes() };
        let ciphertext =
            self.cipher.encrypt(&nonce.into(), payload).map_err(|_too_long| StoreError::Sealed(name.to_owned()))?;
        Ok([MAGIC.as_slice(), &nonce, &ciphertext].concat())
    }

    fn unseal(&self, name: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, StoreError> {
        let corrupt = || StoreError::Sealed(name.to_owned());
        let rest = sealed.strip_prefix(MAGIC).ok_or_else(corrupt)?;
        let (nonce, ciphertext) = rest.split_first_chunk::<NONCE_BYTES>().ok_or_else(corrupt)?;
        let payload = Payload { msg: ciphertext, aad: name.as_bytes() };
        let content = self.cipher.decrypt(&(*nonce).into(), payload).map_err(|_forged| corrupt())?;
        Ok(Zeroizing::new(content))
    }
}

fn read_key(mut file: File) -> Result<Zeroizing<Vec<u8>>, StoreError> {
    let metadata = file.metadata().map_err(io_error("inspect the key file"))?;
    if metadata.permissions().mode() & 0o077 != 0 || metadata.len() != KEY_BYTES as u64 {
        return Err(StoreError::Key);
    }
    let mut key = Zeroizing::new(Vec::with_capacity(KEY_BYTES));
    file.read_to_end(&mut key).map_err(io_error("read the key file"))?;
    Ok(key)
}

fn make_key<R: Rng + ?Sized>(root: &Path, path: &Path, random: &mut R) -> Result<Zeroizing<Vec<u8>>, StoreError> {
    let mut key = Zeroizing::new(vec![0u8; KEY_BYTES]);
    random.fill_bytes(&mut key);
    write_whole(root, path, &key).map_err(io_error("write the key file"))?;
    Ok(key)
}

/// True where some file below `directory` was sealed by some key.
fn has_sealed_files(directory: &Path) -> Result<bool, StoreError> {
    let failed = || io_error("list the data directory");
    for entry in fs::read_dir(directory).map_err(failed())? {
        let entry = entry.map_err(failed())?;
        let kind = entry.file_type().map_err(failed())?;
        if kind.is_dir() {
            if has_sealed_files(&entry.path())? {
                return Ok(true);
            }
        } else if kind.is_file() {
            let mut start = [0u8; MAGIC.len()];
            let read = File::open(entry.path()).and_then(|mut file| file.read_exact(&mut start));
            if read.is_ok() && start == *MAGIC {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Writes beside, flushes, renames, flushes the directory.
fn write_whole(directory: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("file");
    let beside = directory.join(format!(".{name}.new"));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(root: &Path) -> Result<Store, StoreError> {
        Store::open(root, &mut rand::rng())
    }

    #[test]
    fn what_is_written_is_sealed_and_read_back_after_restart() {
        let root = tempfile::tempdir().unwrap();
        open(root.path()).unwrap().write("a/b", b"potassium 6.9").unwrap();
        let raw = fs::read(root.path().join("a/b")).unwrap();
        assert!(!raw.windows(9).any(|window| window == b"potassium"));
        let store = open(root.path()).unwrap();
        assert_eq!(store.load("a/b").unwrap().unwrap().as_slice(), b"potassium 6.9");
        assert_eq!(store.list("a").unwrap(), ["a/b"]);
        store.remove("a/b").unwrap();
        store.remove("a/b").unwrap();
        assert!(store.load("a/b").unwrap().is_none());
    }

    #[test]
    fn corrupt_swapped_and_foreign_files_are_refused() {
        let root = tempfile::tempdir().unwrap();
        let store = open(root.path()).unwrap();
        store.write("a", b"one").unwrap();
        fs::copy(root.path().join("a"), root.path().join("b")).unwrap();
        assert!(matches!(store.load("b"), Err(StoreError::Sealed(_))));
        fs::write(root.path().join("a"), b"MAS1short").unwrap();
        assert!(matches!(store.load("a"), Err(StoreError::Sealed(_))));
        assert!(matches!(store.load("../a"), Err(StoreError::Name)));
    }

    #[test]
    fn a_key_is_neither_replaced_nor_shared() {
        let root = tempfile::tempdir().unwrap();
        open(root.path()).unwrap().write("a", b"one").unwrap();
        let key = root.path().join(KEY_FILE);
        fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(open(root.path()), Err(StoreError::Key)));
        fs::remove_file(&key).unwrap();
        assert!(matches!(open(root.path()), Err(StoreError::KeyMissing)));
        assert!(!key.exists());
    }

    #[test]
    fn a_half_written_file_is_not_seen() {
        let root = tempfile::tempdir().unwrap();
        let store = open(root.path()).unwrap();
        store.write("spool/1", b"one").unwrap();
        fs::write(root.path().join("spool/.2.new"), b"half").unwrap();
        assert_eq!(store.list("spool").unwrap(), ["spool/1"]);
    }
}

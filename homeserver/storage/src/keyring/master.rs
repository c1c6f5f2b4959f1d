//! The master key: wraps the data keys, and comes from outside of the data directory's backups.

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Read, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
    process::{Command, Stdio},
};

use zeroize::Zeroizing;

use super::aead::KEY_BYTES;

/// More than this is no key; nothing more is read.
const MAX_TEXT_BYTES: usize = 256;

/// 32 bytes that open every data key. Wiped when dropped, never printed.
pub struct MasterKey(Zeroizing<[u8; KEY_BYTES]>);

/// Why there is no master key.
#[derive(Debug, thiserror::Error)]
pub enum MasterKeyError {
    /// The file could not be read or made.
    #[error("master key input or output")]
    Io(#[from] std::io::Error),
    /// Others may read the file.
    #[error("the master key file has mode {0:o}; only 0600 and 0400 are accepted")]
    Mode(u32),
    /// It is no regular file.
    #[error("the master key file is not a regular file")]
    NotAFile,
    /// It is not 64 hexadecimal digits.
    #[error("the master key must be 64 hexadecimal digits (32 bytes)")]
    Malformed,
    /// The command did not end well.
    #[error("the master key command failed ({0})")]
    Command(std::process::ExitStatus),
    /// The operating system gave no random bytes.
    #[error("no random bytes from the operating system")]
    NoRandomness,
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("MasterKey(redacted)")
    }
}

impl MasterKey {
    /// These bytes are the key.
    #[must_use]
    pub fn from_bytes(bytes: [u8; KEY_BYTES]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The key in the file `path`: 64 hexadecimal digits and a line end. If there is no file, a new key is made there.
    ///
    /// # Errors
    /// [`MasterKeyError::Mode`] unless the file's mode is 0600 or 0400, [`MasterKeyError::Malformed`] when it
    /// holds something else; nothing is overwritten.
    pub fn from_file(path: &Path) -> Result<Self, MasterKeyError> {
        match Self::load(path) {
            Err(MasterKeyError::Io(error)) if error.kind() == ErrorKind::NotFound => Self::create(path),
            other => other,
        }
    }

    /// The key in the file `path`, which must exist.
    ///
    /// # Errors
    /// As [`MasterKey::from_file`]; [`MasterKeyError::Io`] when there is no file.
    pub fn load(path: &Path) -> Result<Self, MasterKeyError> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(MasterKeyError::NotAFile);
        }
        let mode = metadata.permissions().mode() & 0o7777;
        if mode != 0o600 && mode != 0o400 {
            return Err(MasterKeyError::Mode(mode));
        }
        Self::read(file)
    }

    /// A new key is durable in the file `path`, which did not exist; mode 0600.
    ///
    /// # Errors
    /// [`MasterKeyError::Io`] when the file exists or cannot be written.
    pub fn create(path: &Path) -> Result<Self, MasterKeyError> {
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        getrandom::fill(bytes.as_mut_slice()).map_err(|_| MasterKeyError::NoRandomness)?;
        let mut suffix = [0; 8];
        getrandom::fill(&mut suffix).map_err(|_| MasterKeyError::NoRandomness)?;
        let mut name = path.to_owned().into_os_string();
        name.push(format!(".{}.new", hex::encode(suffix)));
        let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&name)?;
        let text = Zeroizing::new(format!("{}\n", Zeroizing::new(hex::encode(bytes.as_slice())).as_str()));
        // A link never replaces: whole or not at all, and never over another key.
        let written =
            file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).and_then(|()| fs::hard_link(&name, path));
        fs::remove_file(&name)?;
        written?;
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
        File::open(directory)?.sync_all()?;
        Ok(Self(bytes))
    }

    /// The key that a shell command prints: 64 hexadecimal digits and a line end.
    ///
    /// # Errors
    /// [`MasterKeyError::Command`] unless it ends with status 0, [`MasterKeyError::Malformed`] when it prints
    /// something else.
    pub fn from_command(command: &str) -> Result<Self, MasterKeyError> {
        let mut child =
            Command::new("/bin/sh").args(["-c", command]).stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        // The pipe is closed when reading ends, so a command that prints for ever ends too.
        let key = child.stdout.take().ok_or(MasterKeyError::Malformed).and_then(Self::read);
        let status = child.wait()?;
        if status.success() { key } else { Err(MasterKeyError::Command(status)) }
    }

    fn read(source: impl Read) -> Result<Self, MasterKeyError> {
        let limit = u64::try_from(MAX_TEXT_BYTES).unwrap_or(0);
        let mut text = Zeroizing::new(Vec::with_capacity(MAX_TEXT_BYTES));
        source.take(limit).read_to_end(&mut text)?;
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        hex::decode_to_slice(text.trim_ascii(), bytes.as_mut_slice()).map_err(|_| MasterKeyError::Malformed)?;
        Ok(Self(bytes))
    }

    pub(super) fn bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }
}

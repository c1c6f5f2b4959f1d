//! What a backup is a backup of, and every file in it: `backup.json` in its directory.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{self, Read as _},
    path::Path,
};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::failure::Failure;

/// The manifest's own name.
const NAME: &str = "backup.json";
/// What a restore copies: nothing else may be in these than what the manifest lists.
const COPIED: [&str; 4] = ["store", "media", "keyring", "signing.key"];
/// The format that is written; 1 listed no files.
const FORMAT: u32 = 2;

/// A backup's manifest.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Manifest {
    format: u32,
    pub(crate) server_name: String,
    pub(crate) engine: String,
    pub(crate) position: u64,
    made_at_ms: u64,
    with_key_ring: bool,
    /// Every file but this one, by its path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    files: Option<BTreeMap<String, Sum>>,
}

/// How a file was when the backup was made.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sum {
    bytes: u64,
    sha256: String,
}

impl Manifest {
    /// Of the backup in `directory`, to which nothing is added any more.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub(super) fn of(
        directory: &Path,
        server_name: String,
        engine: String,
        position: u64,
        made_at_ms: u64,
        with_key_ring: bool,
    ) -> io::Result<Self> {
        let mut files = BTreeMap::new();
        for name in names(directory)? {
            let sum = sum(&directory.join(&name))?;
            files.insert(name, sum);
        }
        Ok(Self { format: FORMAT, server_name, engine, position, made_at_ms, with_key_ring, files: Some(files) })
    }

    /// It is written, and with it the directory is a backup.
    ///
    /// # Errors
    /// [`Failure::Document`], never in practice; [`Failure::Data`] when the file exists or cannot be written.
    pub(super) fn write(&self, directory: &Path) -> Result<(), Failure> {
        let text = serde_json::to_vec_pretty(self).map_err(|error| Failure::Document(error.to_string()))?;
        Ok(crate::data::write_new(&directory.join(NAME), 0o600, &text)?)
    }

    /// The manifest of the backup in `directory`.
    ///
    /// # Errors
    /// [`Failure::Document`] when there is none, or one of a newer version.
    pub(crate) fn read(directory: &Path) -> Result<Self, Failure> {
        let path = directory.join(NAME);
        let text = std::fs::read_to_string(&path)
            .map_err(|error| Failure::Document(format!("{} is no backup: {error}", directory.display())))?;
        let manifest: Self =
            serde_json::from_str(&text).map_err(|error| Failure::Document(format!("{}: {error}", path.display())))?;
        match (manifest.format, manifest.files.is_some()) {
            (1, false) | (FORMAT, true) => Ok(manifest),
            (1 | FORMAT, _) => Err(Failure::Document(format!("{} does not say what the backup holds", path.display()))),
            _ => Err(Failure::Document(format!("{} is of a newer format", path.display()))),
        }
    }

    /// Every file is as it was written, and there is no other; `false` for an old backup, which does not list them.
    ///
    /// # Errors
    /// [`Failure::Document`] naming the first file that is missing, changed, or not of this backup.
    pub(crate) fn verify(&self, directory: &Path) -> Result<bool, Failure> {
        let Some(files) = &self.files else { return Ok(false) };
        let damaged = |name: &str, what: &str| {
            Failure::Document(format!(
                "this backup is damaged and nothing was restored: {} {what}",
                directory.join(name).display()
            ))
        };
        let there = names(directory).map_err(Failure::io(format!("cannot read {}", directory.display())))?;
        for (name, written) in files {
            if !there.contains(name) {
                return Err(damaged(name, "is missing"));
            }
            let found = sum(&directory.join(name)).map_err(Failure::io(format!("cannot read {name} of the backup")))?;
            if found.bytes != written.bytes {
                let what = format!("has {} bytes, and was written with {}", found.bytes, written.bytes);
                return Err(damaged(name, &what));
            }
            if found != *written {
                return Err(damaged(name, "is not what was written"));
            }
        }
        let is_copied = |name: &str| COPIED.contains(&name.split('/').next().unwrap_or(name));
        match there.iter().find(|name| is_copied(name) && !files.contains_key(*name)) {
            Some(name) => Err(damaged(name, "is not of this backup")),
            None => Ok(true),
        }
    }
}

/// The paths of all files below `directory`, the manifest's aside.
fn names(directory: &Path) -> io::Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    let mut folders = vec![(directory.to_owned(), String::new())];
    while let Some((folder, prefix)) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            if entry.file_type()?.is_dir() {
                folders.push((entry.path(), format!("{name}/")));
            } else if name != NAME {
                found.insert(name);
            }
        }
    }
    Ok(found)
}

fn sum(path: &Path) -> io::Result<Sum> {
    let mut file = File::open(path)?;
    let (mut hash, mut bytes) = (Sha256::new(), 0_u64);
    let mut part = vec![0; 64 * 1024];
    loop {
        let read = file.read(&mut part)?;
        let Some(read) = part.get(..read).filter(|read| !read.is_empty()) else { break };
        hash.update(read);
        bytes = bytes.saturating_add(u64::try_from(read.len()).unwrap_or(u64::MAX));
    }
    Ok(Sum { bytes, sha256: hex::encode(hash.finalize()) })
}

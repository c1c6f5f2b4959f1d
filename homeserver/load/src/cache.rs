//! A file that keeps users and filled rooms between calls, so that they are made once.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::client::User;
use crate::error::LoadError;

/// What is known of each server, by its URL.
pub(crate) struct Cache {
    path: Option<PathBuf>,
    servers: BTreeMap<String, Known>,
}

/// What was made at one server.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Known {
    /// Those who send, join and listen.
    pub(crate) users: Vec<User>,
    /// Those who are in many filled rooms, by what is in these.
    pub(crate) readers: BTreeMap<String, User>,
    /// Rooms with a long past, by how long it is and how many are in them.
    pub(crate) rooms: BTreeMap<String, String>,
}

impl Cache {
    /// What the file holds: nothing, if there is none yet, or none is named.
    ///
    /// # Errors
    ///
    /// Where the file cannot be read or is none of this crate's.
    pub(crate) fn load(path: Option<&Path>) -> Result<Self, LoadError> {
        let servers = match path {
            Some(path) => read(path).map_err(|source| LoadError::Cache { path: path.to_owned(), source })?,
            None => BTreeMap::new(),
        };
        Ok(Self { path: path.map(Path::to_owned), servers })
    }

    /// What is known of the server at `url`.
    pub(crate) fn server(&mut self, url: &str) -> &mut Known {
        self.servers.entry(url.to_owned()).or_default()
    }

    /// The file holds what is known now.
    pub(crate) fn save(&self) -> Result<(), LoadError> {
        let Some(path) = &self.path else {
            return Ok(());
        };
        let written = serde_json::to_vec(&self.servers).map_err(io::Error::from).and_then(|json| fs::write(path, json));
        written.map_err(|source| LoadError::Cache { path: path.clone(), source })
    }
}

fn read(path: &Path) -> io::Result<BTreeMap<String, Known>> {
    match fs::read(path) {
        Ok(json) => Ok(serde_json::from_slice(&json)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_saved_is_known_to_the_next_call() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cache.json");
        let mut cache = Cache::load(Some(&path)).unwrap();
        cache.server("http://a").rooms.insert("5000".to_owned(), "!room:a".to_owned());
        cache.save().unwrap();
        let mut again = Cache::load(Some(&path)).unwrap();
        assert_eq!(again.server("http://a").rooms["5000"], "!room:a");
        assert!(again.server("http://b").rooms.is_empty());
    }

    #[test]
    fn another_file_is_not_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notes.txt");
        fs::write(&path, "not a cache").unwrap();
        assert!(matches!(Cache::load(Some(&path)), Err(LoadError::Cache { .. })));
    }
}

//! Key backup: versions here, [`sessions`], and their death with the content they decrypt ([`shred`]).
//!
//! Spec: <https://spec.matrix.org/v1.19/client-server-api/#server-side-key-backups>.

pub mod sessions;
pub mod shred;

use matron_storage::{Batch, CommitError, Key, KeyReader, Order, Table};
use ruma::UserId;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use self::sessions::{BackedUpSession, RoomSessions, Scope, Sessions};
use super::upload::MAX_TRIES;
use crate::{
    Core, Error,
    house::{from_json, to_json},
};

/// The largest `auth_data`, bytes.
const MAX_AUTH_DATA_BYTES: usize = 64 * 1024;

/// What a client says of a version.
#[derive(Clone, Debug, Deserialize)]
pub struct VersionUpload {
    /// The algorithm.
    pub algorithm: String,
    /// What clients need to use it.
    pub auth_data: Value,
    /// In an update: the version, if given.
    #[serde(default)]
    pub version: Option<String>,
}

/// A version as clients see it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct VersionInfo {
    /// The algorithm.
    pub algorithm: String,
    /// What clients need to use it.
    pub auth_data: Value,
    /// How many sessions it holds.
    pub count: u64,
    /// Changes with every change of its sessions.
    pub etag: String,
    /// Its id.
    pub version: String,
}

/// What a change of sessions answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BackupTally {
    /// How many sessions the version holds.
    pub count: u64,
    /// Changes with every change.
    pub etag: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Version {
    algorithm: String,
    auth_data: Value,
    etag: u64,
    count: u64,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    deleted: bool,
}

impl Version {
    fn tally(&self) -> BackupTally {
        BackupTally { count: self.count, etag: self.etag.to_string() }
    }
}

/// A version as it was read.
struct ReadVersion {
    row: Key,
    bytes: Vec<u8>,
    version: Version,
}

impl ReadVersion {
    fn write(&self, batch: &mut Batch, version: &Version) -> Result<(), Error> {
        batch.expect_equals(Table::BackupVersion, self.row.clone(), self.bytes.clone());
        batch.put(Table::BackupVersion, self.row.clone(), to_json(version)?);
        Ok(())
    }
}

fn no_backup() -> Error {
    Error::not_found("there is no such backup")
}

fn parse_version(version: &str) -> Result<u64, Error> {
    version.parse().map_err(|_| no_backup())
}

fn sessions_key(user: &UserId, version: u64) -> Key {
    Key::new().text(user).number(version)
}

impl Core {
    /// A new, empty version, which is the current one; its id.
    ///
    /// # Errors
    /// `M_TOO_LARGE`, `M_BAD_JSON`, [`Error::Store`].
    pub async fn create_backup_version(&self, user: &UserId, upload: VersionUpload) -> Result<String, Error> {
        check_version(&upload)?;
        for _ in 0..MAX_TRIES {
            let newest = self.newest_version(user)?.unwrap_or(0);
            let number = newest.saturating_add(1);
            let row = Key::new().text(user).number(number);
            let version = Version {
                algorithm: upload.algorithm.clone(),
                auth_data: upload.auth_data.clone(),
                etag: 0,
                count: 0,
                deleted: false,
            };
            let mut batch = Batch::new();
            batch.expect_absent(Table::BackupVersion, row.clone());
            batch.put(Table::BackupVersion, row, to_json(&version)?);
            match self.store.submit(batch).await {
                Ok(_) => return Ok(number.to_string()),
                Err(CommitError::Conflict(_)) => {}
                Err(CommitError::Store(error)) => return Err(error.into()),
            }
        }
        Err(Error::LimitExceeded { retry_after_ms: 1_000 })
    }

    /// A version, or the current one if none is named.
    ///
    /// # Errors
    /// `M_NOT_FOUND`.
    pub fn backup_version(&self, user: &UserId, version: Option<&str>) -> Result<VersionInfo, Error> {
        let (number, read) = match version {
            Some(version) => {
                let number = parse_version(version)?;
                (number, self.read_version(user, number)?)
            }
            None => self.current_version(user)?.ok_or_else(no_backup)?,
        };
        let Version { algorithm, auth_data, etag, count, .. } = read.version;
        Ok(VersionInfo { algorithm, auth_data, count, etag: etag.to_string(), version: number.to_string() })
    }

    /// The version has this `auth_data`.
    ///
    /// # Errors
    /// `M_NOT_FOUND`; `M_INVALID_PARAM` for another algorithm or version.
    pub async fn update_backup_version(
        &self,
        user: &UserId,
        version: &str,
        upload: VersionUpload,
    ) -> Result<(), Error> {
        check_version(&upload)?;
        let number = parse_version(version)?;
        if upload.version.is_some_and(|named| named != version) {
            return Err(Error::invalid("the version in the body is not that in the path"));
        }
        for _ in 0..MAX_TRIES {
            let read = self.read_version(user, number)?;
            if read.version.algorithm != upload.algorithm {
                return Err(Error::invalid("the algorithm of a backup cannot be changed"));
            }
            let changed = Version { auth_data: upload.auth_data.clone(), ..read.version.clone() };
            let mut batch = Batch::new();
            read.write(&mut batch, &changed)?;
            match self.store.submit(batch).await {
                Ok(_) => return Ok(()),
                Err(CommitError::Conflict(_)) => {}
                Err(CommitError::Store(error)) => return Err(error.into()),
            }
        }
        Err(Error::LimitExceeded { retry_after_ms: 1_000 })
    }

    /// The version and its sessions are gone; deleting it again succeeds.
    ///
    /// # Errors
    /// `M_NOT_FOUND` for a version that never was.
    pub async fn delete_backup_version(&self, user: &UserId, version: &str) -> Result<(), Error> {
        let number = parse_version(version)?;
        let row = Key::new().text(user).number(number);
        let Some(version) = self.load::<Version>(Table::BackupVersion, &row)? else { return Err(no_backup()) };
        if version.deleted {
            return Ok(());
        }
        let tombstone = Version { auth_data: Value::Null, count: 0, deleted: true, ..version };
        let mut batch = Batch::new();
        batch.delete_range(Table::BackupSession, sessions_key(user, number).prefix());
        batch.put(Table::BackupVersion, row, to_json(&tombstone)?);
        self.commit(batch).await?;
        Ok(())
    }

    fn read_version(&self, user: &UserId, number: u64) -> Result<ReadVersion, Error> {
        let row = Key::new().text(user).number(number);
        let bytes = self.store.get(Table::BackupVersion, row.as_bytes())?.ok_or_else(no_backup)?;
        let version: Version = from_json(Table::BackupVersion, &bytes)?;
        if version.deleted {
            return Err(no_backup());
        }
        Ok(ReadVersion { row, bytes, version })
    }

    /// The newest version, deleted or not.
    fn newest_version(&self, user: &UserId) -> Result<Option<u64>, Error> {
        let range = Key::new().text(user).prefix();
        let rows = self.store.scan(Table::BackupVersion, &range, Order::Descending, 1)?;
        Ok(rows.first().and_then(|(key, _)| version_of(key)))
    }

    /// The newest version that is not deleted.
    fn current_version(&self, user: &UserId) -> Result<Option<(u64, ReadVersion)>, Error> {
        let mut range = Key::new().text(user).prefix();
        loop {
            let rows = self.store.scan(Table::BackupVersion, &range, Order::Descending, 16)?;
            for (key, bytes) in &rows {
                let version: Version = from_json(Table::BackupVersion, bytes)?;
                if let (false, Some(number)) = (version.deleted, version_of(key)) {
                    let row = Key::new().text(user).number(number);
                    return Ok(Some((number, ReadVersion { row, bytes: bytes.clone(), version })));
                }
            }
            match rows.last() {
                Some((last, _)) => range = range.before(last),
                None => return Ok(None),
            }
        }
    }
}

fn version_of(key: &[u8]) -> Option<u64> {
    let mut reader = KeyReader::new(key);
    reader.text()?;
    reader.number()
}

fn check_version(upload: &VersionUpload) -> Result<(), Error> {
    // Opaque to us: the algorithm says what it is.
    if upload.algorithm.len() > 255 || to_json(&upload.auth_data)?.len() > MAX_AUTH_DATA_BYTES {
        return Err(Error::TooLarge("`algorithm` or `auth_data` is too large".into()));
    }
    Ok(())
}

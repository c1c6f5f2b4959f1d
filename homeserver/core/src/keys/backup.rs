//! Key backup: versions, sessions, and their death with the content they decrypt.
//!
//! Spec: <https://spec.matrix.org/v1.19/client-server-api/#server-side-key-backups>.

use std::collections::BTreeMap;

use matron_storage::{Batch, CommitError, Key, KeyRange, KeyReader, MAX_PAGE, Order, Table};
use ruma::{OwnedRoomId, RoomId, UserId};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::upload::MAX_TRIES;
use crate::{
    Core, Error,
    house::{from_json, to_json},
};

/// How many sessions one request may store.
const MAX_SESSIONS: usize = 20_000;

/// How many sessions one version may hold.
const MAX_STORED: u64 = 1_000_000;

/// The largest session, bytes.
const MAX_SESSION_BYTES: usize = 64 * 1024;

/// The largest `auth_data`, bytes.
const MAX_AUTH_DATA_BYTES: usize = 64 * 1024;

/// A backed-up session, as clients exchange it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BackedUpSession {
    /// The first message that it decrypts.
    pub first_message_index: u64,
    /// How often it was forwarded.
    pub forwarded_count: u64,
    /// Whether the device that backed it up trusts where it came from.
    pub is_verified: bool,
    /// Encrypted by the client.
    pub session_data: Value,
}

/// Sessions of one room.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RoomSessions {
    /// By session id.
    pub sessions: BTreeMap<String, BackedUpSession>,
}

/// Sessions by room.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sessions {
    /// By room.
    pub rooms: BTreeMap<OwnedRoomId, RoomSessions>,
}

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

/// Which sessions.
#[derive(Clone, Copy, Debug)]
pub enum Scope<'a> {
    /// All.
    All,
    /// Of one room.
    Room(&'a RoomId),
    /// One.
    Session(&'a RoomId, &'a str),
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

impl Scope<'_> {
    fn range(self, user: &UserId, version: u64) -> KeyRange {
        let key = sessions_key(user, version);
        match self {
            Self::All => key.prefix(),
            Self::Room(room) => key.text(room).prefix(),
            Self::Session(room, session) => key.text(room).text(session).prefix(),
        }
    }
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
    pub async fn update_backup_version(&self, user: &UserId, version: &str, upload: VersionUpload) -> Result<(), Error> {
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

    /// The version holds these sessions, or what it held where that is better.
    ///
    /// # Errors
    /// `M_NOT_FOUND`, `M_WRONG_ROOM_KEYS_VERSION` for an older version, `M_TOO_LARGE`.
    pub async fn put_backup_sessions(
        &self,
        user: &UserId,
        version: &str,
        sessions: Sessions,
    ) -> Result<BackupTally, Error> {
        check_sessions(&sessions)?;
        let number = parse_version(version)?;
        for _ in 0..MAX_TRIES {
            let (current, read) = self.current_version(user)?.ok_or_else(no_backup)?;
            if current != number {
                return Err(Error::WrongRoomKeysVersion { current_version: current.to_string() });
            }
            let mut batch = Batch::new();
            let mut changed = read.version.clone();
            for (room, RoomSessions { sessions }) in &sessions.rooms {
                for (id, session) in sessions {
                    let key = sessions_key(user, number).text(room).text(id);
                    match self.load::<BackedUpSession>(Table::BackupSession, &key)? {
                        Some(held) if !replaces(session, &held) => continue,
                        Some(_) => {}
                        None => changed.count = changed.count.saturating_add(1),
                    }
                    batch.put(Table::BackupSession, key, to_json(session)?);
                }
            }
            if batch.is_empty() {
                return Ok(changed.tally());
            }
            if changed.count > MAX_STORED {
                return Err(Error::TooLarge(format!("a backup holds at most {MAX_STORED} sessions").into()));
            }
            changed.etag = changed.etag.saturating_add(1);
            read.write(&mut batch, &changed)?;
            match self.store.submit(batch).await {
                Ok(_) => return Ok(changed.tally()),
                Err(CommitError::Conflict(_)) => tokio::task::yield_now().await,
                Err(CommitError::Store(error)) => return Err(error.into()),
            }
        }
        Err(Error::LimitExceeded { retry_after_ms: 1_000 })
    }

    /// The sessions of a version within a scope; a room without sessions is an empty answer, a missing session an error.
    ///
    /// # Errors
    /// `M_NOT_FOUND`.
    pub fn backup_sessions(&self, user: &UserId, version: &str, scope: Scope<'_>) -> Result<Sessions, Error> {
        let number = parse_version(version)?;
        self.read_version(user, number)?;
        let mut range = scope.range(user, number);
        let mut found = Sessions::default();
        loop {
            let page = self.store.scan(Table::BackupSession, &range, Order::Ascending, MAX_PAGE)?;
            for (key, bytes) in &page {
                let Some((room, session)) = session_of(key) else { continue };
                let held = from_json(Table::BackupSession, bytes)?;
                found.rooms.entry(room).or_default().sessions.insert(session, held);
            }
            match page.last() {
                Some((last, _)) if page.len() == MAX_PAGE => range = range.after(last),
                _ => break,
            }
        }
        if found.rooms.is_empty() && matches!(scope, Scope::Session(..)) {
            return Err(Error::not_found("this session is not in the backup"));
        }
        Ok(found)
    }

    /// The sessions within the scope are gone.
    ///
    /// # Errors
    /// `M_NOT_FOUND`.
    pub async fn delete_backup_sessions(
        &self,
        user: &UserId,
        version: &str,
        scope: Scope<'_>,
    ) -> Result<BackupTally, Error> {
        let number = parse_version(version)?;
        for _ in 0..MAX_TRIES {
            let read = self.read_version(user, number)?;
            let range = scope.range(user, number);
            let held = self.count_rows(&range)?;
            if held == 0 {
                return Ok(read.version.tally());
            }
            let changed = Version {
                etag: read.version.etag.saturating_add(1),
                count: read.version.count.saturating_sub(held),
                ..read.version.clone()
            };
            let mut batch = Batch::new();
            batch.delete_range(Table::BackupSession, range);
            read.write(&mut batch, &changed)?;
            match self.store.submit(batch).await {
                Ok(_) => return Ok(changed.tally()),
                Err(CommitError::Conflict(_)) => tokio::task::yield_now().await,
                Err(CommitError::Store(error)) => return Err(error.into()),
            }
        }
        Err(Error::LimitExceeded { retry_after_ms: 1_000 })
    }

    fn count_rows(&self, range: &KeyRange) -> Result<u64, Error> {
        let mut range = range.clone();
        let mut count = 0_u64;
        loop {
            let page = self.store.scan(Table::BackupSession, &range, Order::Ascending, MAX_PAGE)?;
            count = count.saturating_add(page.len().try_into().unwrap_or(u64::MAX));
            match page.last() {
                Some((last, _)) if page.len() == MAX_PAGE => range = range.after(last),
                _ => return Ok(count),
            }
        }
    }

    /// No backup of any user holds these sessions any more: what they decrypt has expired. How many were removed.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn shred_backup_sessions(&self, room: &RoomId, sessions: &[String]) -> Result<u64, Error> {
        let mut range = KeyRange::all();
        let mut shredded = 0_u64;
        loop {
            let page = self.store.scan(Table::BackupVersion, &range, Order::Ascending, MAX_PAGE)?;
            for (key, _) in &page {
                let mut reader = KeyReader::new(key);
                let user = reader.text().and_then(|user| ruma::OwnedUserId::try_from(user).ok());
                if let (Some(user), Some(number)) = (user, reader.number()) {
                    for session in sessions {
                        shredded = shredded.saturating_add(self.shred_session(&user, number, room, session).await?);
                    }
                }
            }
            match page.last() {
                Some((last, _)) if page.len() == MAX_PAGE => range = range.after(last),
                _ => return Ok(shredded),
            }
        }
    }

    async fn shred_session(&self, user: &UserId, number: u64, room: &RoomId, session: &str) -> Result<u64, Error> {
        let key = sessions_key(user, number).text(room).text(session);
        if self.store.get(Table::BackupSession, key.as_bytes())?.is_none() {
            return Ok(0);
        }
        match self.delete_backup_sessions(user, &number.to_string(), Scope::Session(room, session)).await {
            Ok(_) => Ok(1),
            // The user deleted the version meanwhile, which is as good.
            Err(Error::NotFound(_)) => Ok(0),
            Err(error) => Err(error),
        }
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

fn session_of(key: &[u8]) -> Option<(OwnedRoomId, String)> {
    let mut reader = KeyReader::new(key);
    reader.text()?;
    reader.number()?;
    Some((OwnedRoomId::try_from(reader.text()?).ok()?, reader.text()?))
}

/// SPEC: v1.19 "Server-side key backups": verified beats unverified, then the lower index, then fewer forwards.
fn replaces(new: &BackedUpSession, held: &BackedUpSession) -> bool {
    if new.is_verified != held.is_verified {
        return new.is_verified;
    }
    if new.first_message_index != held.first_message_index {
        return new.first_message_index < held.first_message_index;
    }
    new.forwarded_count < held.forwarded_count
}

fn check_version(upload: &VersionUpload) -> Result<(), Error> {
    if !upload.auth_data.is_object() {
        return Err(Error::bad_json("`auth_data` is not an object"));
    }
    if upload.algorithm.len() > 255 || to_json(&upload.auth_data)?.len() > MAX_AUTH_DATA_BYTES {
        return Err(Error::TooLarge("`algorithm` or `auth_data` is too large".into()));
    }
    Ok(())
}

fn check_sessions(sessions: &Sessions) -> Result<(), Error> {
    let all = || sessions.rooms.values().flat_map(|room| &room.sessions);
    if all().count() > MAX_SESSIONS {
        return Err(Error::TooLarge(format!("at most {MAX_SESSIONS} sessions in one request").into()));
    }
    for (id, session) in all() {
        if id.len() > 255 || to_json(&session.session_data)?.len() > MAX_SESSION_BYTES {
            return Err(Error::TooLarge("a session is too large".into()));
        }
        if !session.session_data.is_object() {
            return Err(Error::bad_json("`session_data` is not an object"));
        }
    }
    Ok(())
}

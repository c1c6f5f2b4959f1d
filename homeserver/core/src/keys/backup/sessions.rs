//! The sessions of a version: stored where better, read and deleted by scope.

use std::collections::BTreeMap;

use matron_storage::{Batch, CommitError, KeyRange, KeyReader, MAX_PAGE, Order, Table};
use ruma::{OwnedRoomId, RoomId, UserId};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{super::upload::MAX_TRIES, BackupTally, Version, no_backup, parse_version, sessions_key};
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

/// A backed-up session, as clients exchange it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BackedUpSession {
    /// The first message that it decrypts.
    pub first_message_index: u64,
    /// How often it was forwarded.
    pub forwarded_count: u64,
    /// Whether the device that backed it up trusts where it came from.
    pub is_verified: bool,
    /// Encrypted by the client; opaque to us.
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

fn check_sessions(sessions: &Sessions) -> Result<(), Error> {
    let all = || sessions.rooms.values().flat_map(|room| &room.sessions);
    if all().count() > MAX_SESSIONS {
        return Err(Error::TooLarge(format!("at most {MAX_SESSIONS} sessions in one request").into()));
    }
    for (id, session) in all() {
        if id.len() > 255 || to_json(&session.session_data)?.len() > MAX_SESSION_BYTES {
            return Err(Error::TooLarge("a session is too large".into()));
        }
    }
    Ok(())
}

//! To-device messages lie sealed: in the inbox of a device, and in the queue of a server on their way to it.
//!
//! Their data keys are the server's, one for the day in which a bucket ends. When a bucket has ended, what still waits in it
//! is sealed anew, for as long as it has waited already, and the key is destroyed: what was taken cannot be opened any
//! more when as much time again has gone by as it waited, and at the latest two days where that is less than one.
//! So bytes that were read a while ago may not open while their message can still be read: who opens a row reads it again
//! before giving it up.
//!
//! A row is `1`, when the message came, its bucket, and the sealed bytes. Rows of before that are JSON; the first round after
//! a start seals them.

use std::borrow::Cow;

use matron_storage::{Batch, CommitError, KeyRange, Order, Table, keyring::KeyRingError};

use super::inbox;
use crate::{Core, Error, outbox};

/// Whose keys they are, in the key ring: no room has such an id.
const KEY_ROOM: &str = "to-device";
const DAY_MS: u64 = 24 * 60 * 60 * 1000;
/// The first byte of a row.
const FORMAT: u8 = 1;
/// How many rows are sealed anew at once: with the largest content, some ten megabytes.
const PAGE: usize = 200;
/// How often a page is read again that changed while it was sealed.
const MAX_TRIES: usize = 8;

/// What a row says without its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Head {
    came_ms: u64,
    bucket: u64,
}

/// What came of a row that was to be opened.
#[derive(Debug)]
pub(crate) enum Opened<T> {
    /// What it says.
    Message(T),
    /// It is not there any more: it was taken, or too old.
    Gone,
    /// Nobody can ever open it: its data key is gone, or it was changed or belongs elsewhere. As it lies there.
    Lost(Vec<u8>),
}

/// The bucket of what is sealed now and came at `came_ms`: the end of the day in which it will have waited twice as long.
fn bucket_of(came_ms: u64, now_ms: u64) -> u64 {
    let waited_ms = now_ms.saturating_sub(came_ms);
    now_ms.saturating_add(waited_ms.max(DAY_MS)).div_ceil(DAY_MS).saturating_mul(DAY_MS)
}

/// The row's head and what is sealed; `None` for a row of before.
fn split(row: &[u8]) -> Option<(Head, &[u8])> {
    let (&[FORMAT], rest) = row.split_first_chunk::<1>()? else { return None };
    let (came, rest) = rest.split_first_chunk::<8>()?;
    let (bucket, sealed) = rest.split_first_chunk::<8>()?;
    Some((Head { came_ms: u64::from_be_bytes(*came), bucket: u64::from_be_bytes(*bucket) }, sealed))
}

/// What the sealed bytes belong to: the table, and the device or server for which they wait.
fn bound_to(table: Table, owner: &[u8]) -> Vec<u8> {
    [table.name().as_bytes(), &[0], owner].concat()
}

/// The part of a row's key that names for whom it waits: all but its position.
fn owner_of(key: &[u8]) -> &[u8] {
    key.split_last_chunk::<8>().map_or(key, |(owner, _)| owner)
}

/// Whether the row is sealed.
pub(crate) fn is_sealed(row: &[u8]) -> bool {
    row.first() == Some(&FORMAT)
}

/// When the message of a sealed row came, ms since the epoch.
pub(super) fn came_ms(row: &[u8]) -> Option<u64> {
    split(row).map(|(head, _)| head.came_ms)
}

impl Core {
    /// The row of a message that waits for `owner` and comes now.
    ///
    /// # Errors
    /// [`Error::Internal`] when the key ring cannot be written.
    pub(crate) fn seal_message(&self, table: Table, owner: &[u8], message: &[u8]) -> Result<Vec<u8>, Error> {
        self.seal_message_of(table, owner, message, self.now_ms())
    }

    fn seal_message_of(&self, table: Table, owner: &[u8], message: &[u8], came_ms: u64) -> Result<Vec<u8>, Error> {
        let bucket = bucket_of(came_ms, self.now_ms());
        let sealed = self.keyring.seal(KEY_ROOM, bucket, &bound_to(table, owner), message).map_err(unsealable)?;
        let mut row = Vec::with_capacity(sealed.len().saturating_add(17));
        row.push(FORMAT);
        row.extend_from_slice(&came_ms.to_be_bytes());
        row.extend_from_slice(&bucket.to_be_bytes());
        row.extend_from_slice(&sealed);
        Ok(row)
    }

    /// The message of a sealed row that was read under this key, also if it was sealed anew since. One that is lost is
    /// passed over: what waits behind it must not wait for that.
    ///
    /// # Errors
    /// [`Error::Store`]; [`Error::Internal`] when the key ring cannot be read.
    pub(crate) fn open_message(&self, table: Table, key: &[u8], row: &[u8]) -> Result<Opened<Vec<u8>>, Error> {
        let mut row = Cow::Borrowed(row);
        // Comes round again only when it was sealed anew between two lines.
        loop {
            let error = match self.open_bytes(table, key, &row) {
                Ok(message) => return Ok(Opened::Message(message)),
                Err(error @ (KeyRingError::KeyDestroyed | KeyRingError::Tampered)) => error,
                Err(error) => return Err(unsealable(error)),
            };
            // A key is destroyed after what lay under it was sealed anew: if that happened, it is seen here.
            let now = self.store.get(table, key)?;
            match now {
                None => return Ok(Opened::Gone),
                Some(now) if now == *row => {
                    tracing::warn!(table = table.name(), %error, "a to-device message is lost");
                    return Ok(Opened::Lost(now));
                }
                Some(now) => row = Cow::Owned(now),
            }
        }
    }

    fn open_bytes(&self, table: Table, key: &[u8], row: &[u8]) -> Result<Vec<u8>, KeyRingError> {
        let (head, sealed) = split(row).ok_or(KeyRingError::Tampered)?;
        self.keyring.open_sealed(KEY_ROOM, head.bucket, &bound_to(table, owner_of(key)), sealed)
    }

    /// The keys of today and tomorrow are there, so that no message waits for one; and those whose bucket has ended are
    /// destroyed, after what still waits under them was sealed anew. `all`: rows of before are sealed too. `false` if rows
    /// changed too often for that: the keys stay, and it must be asked for again.
    ///
    /// # Errors
    /// [`Error::Store`]; [`Error::Internal`] when the key ring cannot be written. What was done stays done.
    pub(crate) async fn renew_message_keys(&self, all: bool) -> Result<bool, Error> {
        let now_ms = self.now_ms();
        let today = bucket_of(now_ms, now_ms);
        let wanted = [(KEY_ROOM, today), (KEY_ROOM, today.saturating_add(DAY_MS))];
        self.keyring.prepare(&wanted).map_err(unsealable)?;
        let ended: Vec<(&str, u64)> = self
            .keyring
            .buckets(KEY_ROOM)
            .into_iter()
            .filter(|end| *end <= now_ms)
            .map(|end| (KEY_ROOM, end))
            .collect();
        if ended.is_empty() && !all {
            return Ok(true);
        }
        for table in [Table::ToDeviceInbox, Table::OutboxRow] {
            if !self.reseal_table(table).await? {
                return Ok(false);
            }
        }
        self.keyring.destroy_many(&ended).map_err(unsealable)?;
        Ok(true)
    }

    /// No row of the table needs the key of a bucket that has ended; `false` if that cannot be said.
    async fn reseal_table(&self, table: Table) -> Result<bool, Error> {
        let mut range = KeyRange::all();
        loop {
            let mut tries = 0;
            let next = loop {
                let page = self.store.scan(table, &range, Order::Ascending, PAGE)?;
                let mut batch = Batch::new();
                for (key, row) in &page {
                    self.reseal_row(&mut batch, table, key, row)?;
                }
                let next = page.last().filter(|_| page.len() == PAGE).map(|(key, _)| range.clone().after(key));
                if batch.is_empty() {
                    break next;
                }
                match self.store.submit(batch).await {
                    Ok(_) => break next,
                    // A message was taken meanwhile.
                    Err(CommitError::Conflict(_)) if tries < MAX_TRIES => tries += 1,
                    Err(CommitError::Conflict(_)) => return Ok(false),
                    Err(error) => return Err(error.into()),
                }
            };
            let Some(next) = next else { return Ok(true) };
            range = next;
            tokio::task::yield_now().await;
        }
    }

    /// Adds to the batch that the row lies under a key that goes on, if its own does not; or is gone, if its time is over or
    /// nobody can open it. One of before that says nothing stays as it is.
    fn reseal_row(&self, batch: &mut Batch, table: Table, key: &[u8], row: &[u8]) -> Result<(), Error> {
        let now_ms = self.now_ms();
        let waiting = match split(row) {
            Some((head, _)) if head.bucket > now_ms => return Ok(()),
            Some((head, _)) => match self.open_message(table, key, row)? {
                Opened::Message(message) => Some((head.came_ms, message)),
                Opened::Gone => return Ok(()),
                Opened::Lost(_) => None,
            },
            None => match read_unsealed(table, row, now_ms) {
                Ok(Some(message)) => Some(message),
                Ok(None) => return Ok(()),
                // The error may show what is in it.
                Err(_) => {
                    tracing::warn!(table = table.name(), "a malformed row is not sealed");
                    return Ok(());
                }
            },
        };
        match waiting.filter(|(came_ms, _)| table == Table::OutboxRow || !inbox::is_over(*came_ms, now_ms)) {
            Some((came_ms, message)) => {
                batch.put(table, key, self.seal_message_of(table, owner_of(key), &message, came_ms)?)
            }
            None => batch.delete(table, key),
        };
        batch.expect_equals(table, key, row);
        Ok(())
    }
}

/// When the message of a row of before came, and what is to be sealed; `None` for a row that need not be.
fn read_unsealed(table: Table, row: &[u8], now_ms: u64) -> Result<Option<(u64, Vec<u8>)>, Error> {
    if table == Table::OutboxRow {
        return Ok(outbox::unsealed_message(row)?.then(|| (now_ms, row.to_vec())));
    }
    inbox::read_unsealed(row).map(Some)
}

fn unsealable(error: KeyRingError) -> Error {
    Error::internal(format!("a to-device message cannot be sealed or opened: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_ends_a_day_after_its_message_at_least_and_two_at_most_or_when_it_waited_twice_as_long() {
        const NOW_MS: u64 = 1_800_000_000_123;
        for waited in [0, 1, DAY_MS, 3 * DAY_MS, 80 * DAY_MS] {
            let end = bucket_of(NOW_MS - waited, NOW_MS);
            assert_eq!(end % DAY_MS, 0);
            let lasts = end - NOW_MS;
            assert!(lasts >= waited.max(DAY_MS) && lasts < waited.max(DAY_MS) + DAY_MS, "{waited} {lasts}");
        }
    }
}

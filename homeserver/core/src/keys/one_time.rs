//! One-time and fallback keys of a device, and the tally of them that `/sync` tells.
//!
//! One row per device carries counts and a generation; whoever adds or takes a key expects the row as it was read, so
//! concurrent writers, in this process or another, exclude each other.

use std::{collections::BTreeMap, sync::Arc};

use matron_storage::{Batch, Key, KeyReader, Order, Table};
use ruma::{DeviceId, UserId};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    Core, Error,
    house::{from_json, to_json},
};

/// How many one-time keys a device may have on the server.
pub(super) const MAX_ONE_TIME_KEYS: usize = 1_000;

/// How many one-time keys are left, and which fallback keys nobody took yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyCounts {
    /// Unclaimed keys by algorithm; `signed_curve25519` is always there, since clients take its absence for "unchanged".
    pub counts: Arc<BTreeMap<String, u64>>,
    /// Algorithms whose fallback key is unused.
    pub unused_fallback: Arc<[String]>,
}

/// The tally row of a device.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Tally {
    generation: u64,
    pub counts: BTreeMap<String, u64>,
    pub unused_fallback: Vec<String>,
}

/// A tally as it was read, so that a write can expect it unchanged.
#[derive(Debug)]
pub(super) struct ReadTally {
    key: Key,
    bytes: Option<Vec<u8>>,
    pub tally: Tally,
}

impl ReadTally {
    /// The batch carries the changed tally, and is refused if another writer came between.
    pub(super) fn write(mut self, batch: &mut Batch) -> Result<Tally, Error> {
        self.tally.generation = self.tally.generation.wrapping_add(1);
        self.tally.counts.retain(|_, count| *count > 0);
        match self.bytes {
            Some(bytes) => batch.expect_equals(Table::Misc, self.key.clone(), bytes),
            None => batch.expect_absent(Table::Misc, self.key.clone()),
        };
        batch.put(Table::Misc, self.key, to_json(&self.tally)?);
        Ok(self.tally)
    }
}

/// A fallback key as stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct FallbackKey {
    /// `<algorithm>:<id>`.
    pub name: String,
    /// What was uploaded.
    pub key: Value,
    /// Whether somebody took it.
    pub used: bool,
}

/// A one-time key as stored.
#[derive(Clone, Debug)]
pub(super) struct StoredOneTimeKey {
    pub row: Vec<u8>,
    pub bytes: Vec<u8>,
    /// `<algorithm>:<id>`.
    pub name: String,
}

fn tally_key(user: &UserId, device: &DeviceId) -> Key {
    Key::new().text("one_time_key_tally").text(user).text(device)
}

/// The part of the key of a device's one-time keys that they share.
pub(super) fn one_time_prefix(user: &UserId, device: &DeviceId) -> Key {
    Key::new().text(user).text(device)
}

pub(super) fn fallback_key(user: &UserId, device: &DeviceId, algorithm: &str) -> Key {
    Key::new().text(user).text(device).text(algorithm)
}

impl Core {
    /// How many one-time keys the device has left here, and which fallback keys are unused. Warm devices read no disk.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn otk_counts(&self, user: &UserId, device: &DeviceId) -> Result<KeyCounts, Error> {
        let mark = self.store.mark(Table::Misc, tally_key(user, device).as_bytes());
        self.keys.counts.get_or_read(&(user.to_owned(), device.to_owned()), mark, || {
            let Tally { mut counts, unused_fallback, .. } = self.read_tally(user, device)?.tally;
            counts.entry("signed_curve25519".to_owned()).or_insert(0);
            Ok(KeyCounts { counts: Arc::new(counts), unused_fallback: unused_fallback.into() })
        })
    }

    pub(super) fn read_tally(&self, user: &UserId, device: &DeviceId) -> Result<ReadTally, Error> {
        let key = tally_key(user, device);
        let bytes = self.store.get(Table::Misc, key.as_bytes())?;
        let tally = bytes.as_deref().map(|bytes| from_json(Table::Misc, bytes)).transpose()?.unwrap_or_default();
        Ok(ReadTally { key, bytes, tally })
    }

    /// The device's one-time keys, oldest upload first within each algorithm.
    pub(super) fn one_time_keys(
        &self,
        user: &UserId,
        device: &DeviceId,
        algorithm: Option<&str>,
        limit: usize,
    ) -> Result<Vec<StoredOneTimeKey>, Error> {
        let prefix = one_time_prefix(user, device);
        let prefix = algorithm.map_or_else(|| prefix.clone(), |algorithm| prefix.clone().text(algorithm));
        let rows = self.store.scan(Table::DeviceOneTimeKey, &prefix.prefix(), Order::Ascending, limit)?;
        let named = rows.into_iter().filter_map(|(row, bytes)| {
            let mut key = KeyReader::new(&row);
            let (_user, _device, algorithm) = (key.text()?, key.text()?, key.text()?);
            let _uploaded = key.number()?;
            let name = format!("{algorithm}:{}", key.text()?);
            Some(StoredOneTimeKey { row, bytes, name })
        });
        Ok(named.collect())
    }

    /// The batch also removes everything that the device published and everything that waits for it.
    ///
    /// For logout and deletion of devices; call [`Core::device_list_changed`] after the commit.
    pub fn forget_device_keys(&self, batch: &mut Batch, user: &UserId, device: &DeviceId) {
        let prefix = one_time_prefix(user, device);
        batch
            .delete(Table::DeviceKeys, prefix.clone())
            .delete_range(Table::DeviceOneTimeKey, prefix.prefix())
            .delete_range(Table::DeviceFallbackKey, prefix.prefix())
            .delete_range(Table::ToDeviceInbox, prefix.prefix())
            .delete_range(Table::KeySignature, prefix.prefix())
            .delete(Table::Misc, tally_key(user, device));
    }
}

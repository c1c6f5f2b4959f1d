//! Peeks: devices that look into world-readable rooms from outside, by their sync (MSC2753). Off unless the operator wants it.
//!
//! A peek is one device's; it ends when the device says so, when its time is over, when its user joins, and when the room is
//! open to the world no more. It survives a restart. Only rooms that this server is in are peeked into.
//!
//! - [`Registry`]: who looks where, in memory, as rows of `misc` say; whoever looks nowhere costs a sync one look at a setting.
//! - [`change`]: beginning and ending. [`crate::sync`] tells what is seen.

pub mod change;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};

use matron_storage::{Batch, Key, KeyReader, StreamPos, Table};
use parking_lot::Mutex;
use ruma::{DeviceId, OwnedDeviceId, OwnedRoomId, OwnedUserId, RoomId, UserId};
use serde::{Deserialize, Serialize};

use crate::{Core, Error, Requester, house::from_json};

/// How many rooms one device looks into, those included of whose end it was not told yet.
const MAX_PER_DEVICE: usize = 20;
/// How many all devices of a user look into, so that no user takes the places of all.
const MAX_PER_USER: usize = 100;
/// How many peeks there are on the server.
const MAX_PEEKS: usize = 10_000;
/// How long a peek lasts unless the device asks again, ms.
const LIFETIME_MS: u64 = 60 * 60 * 1000;
/// How long it is kept that a peek is over, for a device that does not come to hear of it, ms.
const KEPT_MS: u64 = 7 * 24 * 60 * 60 * 1000;

/// A device's look into a room. A row of `misc`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Peek {
    /// Its first position in the stream: a token before it knows nothing of the peek.
    pub(crate) began: u64,
    /// When it ends by itself, or when it ended if it is over, ms since the epoch.
    pub(crate) until_ms: u64,
    /// The position from which on it is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) over: Option<u64>,
}

impl Peek {
    /// Whether the device was told of it by an answer that ended there.
    pub(crate) fn is_known_at(&self, since: StreamPos) -> bool {
        self.began <= since.0
    }

    /// Whether it is over, though its device may not have heard so.
    fn has_ended(&self, now_ms: u64) -> bool {
        self.over.is_some() || self.until_ms <= now_ms
    }

    /// Whether its device was away for so long that nobody waits for it any more.
    fn is_stale(&self, now_ms: u64) -> bool {
        self.until_ms.saturating_add(KEPT_MS) < now_ms
    }

    /// The position from which on it is over, if that is not after `to`.
    pub(crate) fn over_at(&self, to: StreamPos) -> Option<StreamPos> {
        self.over.filter(|over| *over <= to.0).map(StreamPos)
    }
}

type Device = (OwnedUserId, OwnedDeviceId);

/// Who looks where.
#[derive(Debug, Default)]
struct Registry {
    of_device: HashMap<Device, BTreeMap<OwnedRoomId, Peek>>,
    /// How many devices of whom look into a room.
    into_room: HashMap<OwnedRoomId, BTreeMap<OwnedUserId, usize>>,
    /// How many a user's devices have.
    of_user: HashMap<OwnedUserId, usize>,
    count: usize,
}

impl Registry {
    fn find(&self, device: &Device, room: &RoomId) -> Option<Peek> {
        self.of_device.get(device)?.get(room).copied()
    }

    fn put(&mut self, device: &Device, room: &RoomId, peek: Peek) {
        if self.of_device.entry(device.clone()).or_default().insert(room.to_owned(), peek).is_none() {
            self.count = self.count.saturating_add(1);
            let devices = self.into_room.entry(room.to_owned()).or_default().entry(device.0.clone()).or_insert(0);
            *devices = devices.saturating_add(1);
            let own = self.of_user.entry(device.0.clone()).or_insert(0);
            *own = own.saturating_add(1);
        }
    }

    fn remove(&mut self, device: &Device, room: &RoomId) {
        let Some(rooms) = self.of_device.get_mut(device) else { return };
        if rooms.remove(room).is_none() {
            return;
        }
        if rooms.is_empty() {
            self.of_device.remove(device);
        }
        self.count = self.count.saturating_sub(1);
        if let Some(own) = self.of_user.get_mut(&device.0) {
            *own = own.saturating_sub(1);
            if *own == 0 {
                self.of_user.remove(&device.0);
            }
        }
        let Some(users) = self.into_room.get_mut(room) else { return };
        if let Some(devices) = users.get_mut(&device.0) {
            *devices = devices.saturating_sub(1);
            if *devices == 0 {
                users.remove(&device.0);
            }
        }
        if users.is_empty() {
            self.into_room.remove(room);
        }
    }
}

/// What this concern keeps in memory; truth lives in the store.
#[derive(Debug, Default)]
pub struct State {
    registry: Mutex<Registry>,
}

fn all_rows() -> Key {
    Key::new().text("peek")
}

fn rows_of(user: &UserId, device: &DeviceId) -> Key {
    all_rows().text(user).text(device)
}

fn read_key(key: &[u8]) -> Option<(Device, OwnedRoomId)> {
    let mut reader = KeyReader::new(key.get(all_rows().as_bytes().len()..)?);
    let user = OwnedUserId::try_from(reader.text()?).ok()?;
    let device = OwnedDeviceId::from(reader.text()?);
    Some(((user, device), OwnedRoomId::try_from(reader.text()?).ok()?))
}

impl Core {
    /// Reads who looks where; while nobody may, all that was kept is forgotten.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(crate) fn start_peeks(&self) -> Result<(), Error> {
        let rows = self.scan_all(Table::Misc, &all_rows())?;
        if rows.is_empty() {
            return Ok(());
        }
        let now_ms = self.now_ms();
        let mut batch = Batch::new();
        let mut registry = self.peeks.registry.lock();
        for (key, value) in rows {
            let peek: Peek = from_json(Table::Misc, &value)?;
            match read_key(&key) {
                Some((device, room)) if self.settings.peeking && !peek.is_stale(now_ms) => {
                    registry.put(&device, &room, peek);
                }
                _ => {
                    batch.delete(Table::Misc, key);
                }
            }
        }
        if !batch.is_empty()
            && let Err(error) = self.store.submit(batch).wait()
        {
            // What is not taken away now is taken away by the next start.
            tracing::warn!(%error, "peeks that are over could not be forgotten");
        }
        Ok(())
    }

    /// Passes where devices may look into rooms.
    ///
    /// # Errors
    /// [`Error::Unrecognized`].
    pub fn check_peeking(&self) -> Result<(), Error> {
        if self.settings.peeking { Ok(()) } else { Err(Error::Unrecognized) }
    }

    /// Where the requester's device looks, or has lately stopped to.
    pub(crate) fn peeks_of(&self, requester: &Requester) -> Vec<(OwnedRoomId, Peek)> {
        if !self.settings.peeking {
            return Vec::new();
        }
        let Some(device) = device_of(requester) else { return Vec::new() };
        let registry = self.peeks.registry.lock();
        registry.of_device.get(&device).into_iter().flatten().map(|(room, peek)| (room.clone(), *peek)).collect()
    }

    /// Wakes everyone who looks into the room from outside.
    pub(crate) fn wake_onlookers(&self, room: &RoomId) {
        self.notifier.wake_room(room);
        if self.settings.peeking
            && let Some(users) = self.peeks.registry.lock().into_room.get(room)
        {
            self.notifier.wake_users(users.keys().map(|user| &**user));
        }
    }
}

fn device_of(requester: &Requester) -> Option<Device> {
    Some((requester.user_id.clone(), requester.device_id.clone()?))
}

//! How peeks begin and end.

use std::collections::BTreeMap;

use matron_storage::{Batch, StreamPos, Table};
use ruma::{DeviceId, OwnedRoomId, RoomId, UserId};

use super::{Device, LIFETIME_MS, MAX_PEEKS, MAX_PER_DEVICE, MAX_PER_USER, Peek, Registry, device_of, rows_of};
use crate::{Core, Error, Requester, house::to_json};

/// How many make way at once, so that not everyone who comes looks at all.
const MAKE_WAY: usize = 100;

/// When somebody tries again who found no place, ms.
const RETRY_MS: u64 = 60_000;

impl Core {
    /// The requester's device looks into the room, and learns its state with the next sync; one that does so already goes on
    /// for longer. Gives until when, ms since the epoch.
    ///
    /// # Errors
    /// [`Error::Unrecognized`] where the operator does not want it; 400 `M_BAD_STATE` for who is in the room;
    /// [`Error::Forbidden`] for a room that is not open to the world or not known here, of which the answer shall not tell;
    /// [`Error::LimitExceeded`] with too many.
    pub async fn begin_peek(&self, requester: &Requester, room: &RoomId) -> Result<u64, Error> {
        self.check_peeking()?;
        let device =
            device_of(requester).ok_or_else(|| Error::forbidden("a device looks into rooms, and you are none"))?;
        if self.is_joined(&requester.user_id, room)? {
            return Err(bad_state("you are in this room"));
        }
        if !self.may_peek_into(room)? {
            return Err(Error::forbidden("this room is not open to the world"));
        }
        let now_ms = self.now_ms();
        let until_ms = now_ms.saturating_add(LIFETIME_MS);
        let (made_way, before, peek) = {
            let mut registry = self.peeks.registry.lock();
            let before = registry.find(&device, room);
            let made_way = match before {
                None => registry.check_place(&device, now_ms)?,
                Some(_) => Vec::new(),
            };
            let peek = match before {
                Some(going) if going.over.is_none() => Peek { until_ms, ..going },
                // INVARIANT: after every position that an answer without the peek may have ended at, since whoever asks for
                // peeks after this lock finds it; and before or at that of the commit below, with which it begins.
                _ => Peek { began: self.next_position(), until_ms, over: None },
            };
            registry.put(&device, room, peek);
            (made_way, before, peek)
        };
        let written = async {
            self.forget_made_way(&made_way).await?;
            self.write_peek(&device, room, Some(&peek)).await
        };
        if let Err(error) = written.await {
            let mut registry = self.peeks.registry.lock();
            match before {
                Some(before) => registry.put(&device, room, before),
                None => registry.remove(&device, room),
            }
            return Err(error);
        }
        self.notifier.wake_user(&requester.user_id);
        Ok(until_ms)
    }

    /// The requester's device does not look into the room any more, and its next sync says so.
    ///
    /// # Errors
    /// [`Error::Unrecognized`] where the operator does not want it; 400 `M_BAD_STATE` if it did not.
    pub async fn end_peek(&self, requester: &Requester, room: &RoomId) -> Result<(), Error> {
        self.check_peeking()?;
        let device = device_of(requester);
        let going = device.as_ref().and_then(|device| self.peeks.registry.lock().find(device, room));
        let (Some(device), Some(_)) = (device, going.filter(|peek| peek.over.is_none())) else {
            return Err(bad_state("this device does not look into the room"));
        };
        self.stop_peek(&device, room).await?;
        self.notifier.wake_user(&requester.user_id);
        Ok(())
    }

    /// What is not to be any more is over: peeks whose time has come, into rooms that the user is in now, or that are closed;
    /// and what the device was told to be over, as the token shows, is forgotten. Before an answer's position is sampled.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(crate) async fn settle_peeks(&self, requester: &Requester, since: Option<StreamPos>) -> Result<(), Error> {
        for (room, peek) in self.peeks_of(requester) {
            let Some(device) = device_of(requester) else { return Ok(()) };
            let told = peek.over.is_some_and(|over| since.is_none_or(|since| since.0 >= over));
            if told || self.is_joined(&requester.user_id, &room)? {
                self.write_peek(&device, &room, None).await?;
                self.peeks.registry.lock().remove(&device, &room);
            } else if peek.over.is_none() && (peek.until_ms <= self.now_ms() || !self.may_peek_into(&room)?) {
                self.stop_peek(&device, &room).await?;
            }
        }
        Ok(())
    }

    /// The device is gone, and looks nowhere.
    pub(crate) fn forget_peeks(&self, batch: &mut Batch, user: &UserId, device: &DeviceId) {
        if !self.settings.peeking {
            return;
        }
        batch.delete_range(Table::Misc, rows_of(user, device).prefix());
        let device = (user.to_owned(), device.to_owned());
        let mut registry = self.peeks.registry.lock();
        let rooms: Vec<OwnedRoomId> =
            registry.of_device.get(&device).into_iter().flat_map(|rooms| rooms.keys()).cloned().collect();
        rooms.iter().for_each(|room| registry.remove(&device, room));
    }

    /// Whether the room is one of this server's that the world may look into.
    fn may_peek_into(&self, room: &RoomId) -> Result<bool, Error> {
        self.room_of_ours(room)?.map_or(Ok(false), |room| self.is_open_to_the_world(&room))
    }

    async fn stop_peek(&self, device: &Device, room: &RoomId) -> Result<(), Error> {
        let peek = {
            let mut registry = self.peeks.registry.lock();
            let Some(going) = registry.find(device, room).filter(|peek| peek.over.is_none()) else { return Ok(()) };
            // INVARIANT: as in `begin_peek`.
            let until_ms = going.until_ms.min(self.now_ms());
            let peek = Peek { over: Some(self.next_position()), until_ms, ..going };
            registry.put(device, room, peek);
            peek
        };
        self.write_peek(device, room, Some(&peek)).await
    }

    /// A position that no answer has ended at yet.
    fn next_position(&self) -> u64 {
        self.position().0.saturating_add(1)
    }

    /// The rows of those that made way are gone, but for those that began anew meanwhile.
    async fn forget_made_way(&self, made_way: &[(Device, OwnedRoomId)]) -> Result<(), Error> {
        if made_way.is_empty() {
            return Ok(());
        }
        self.commit_anew(|batch| {
            for (device, room) in made_way {
                let key = rows_of(&device.0, &device.1).text(room);
                let Some(row) = self.store.get(Table::Misc, key.as_bytes())? else { continue };
                // INVARIANT: after the row was read: what begins anew is found here, or else changes the row.
                if self.peeks.registry.lock().find(device, room).is_none() {
                    batch.expect_equals(Table::Misc, key.clone(), row);
                    batch.delete(Table::Misc, key);
                }
            }
            Ok(())
        })
        .await
    }

    /// The row is this, or is gone; the stream has moved on.
    async fn write_peek(&self, device: &Device, room: &RoomId, peek: Option<&Peek>) -> Result<(), Error> {
        let mut batch = Batch::new();
        let key = rows_of(&device.0, &device.1).text(room);
        batch.reserve_position();
        match peek {
            Some(peek) => batch.put(Table::Misc, key, to_json(peek)?),
            None => batch.delete(Table::Misc, key),
        };
        self.commit(batch).await.map(drop)
    }
}

impl Registry {
    /// Passes if there is a place for one more. Where there is none, those make way that are over and whose devices have not
    /// come to hear of it, the longest over first: which that were.
    pub(super) fn check_place(&mut self, device: &Device, now_ms: u64) -> Result<Vec<(Device, OwnedRoomId)>, Error> {
        let full = Err(Error::LimitExceeded { retry_after_ms: RETRY_MS });
        if self.of_device.get(device).map_or(0, BTreeMap::len) >= MAX_PER_DEVICE {
            return full;
        }
        let mut gone = Vec::new();
        if self.of_user.get(&device.0).copied().unwrap_or_default() >= MAX_PER_USER {
            gone.extend(self.make_way(now_ms, |(user, _)| *user == device.0));
            if gone.is_empty() {
                return full;
            }
        }
        if self.count >= MAX_PEEKS {
            let others = self.make_way(now_ms, |_| true);
            if others.is_empty() {
                return full;
            }
            gone.extend(others);
        }
        Ok(gone)
    }

    pub(super) fn make_way(&mut self, now_ms: u64, who: impl Fn(&Device) -> bool) -> Vec<(Device, OwnedRoomId)> {
        let all = self.of_device.iter().filter(|(device, _)| who(device));
        let mut ended: Vec<_> = all
            .flat_map(|(device, rooms)| rooms.iter().map(move |(room, peek)| (peek, device, room)))
            .filter(|(peek, _, _)| peek.has_ended(now_ms))
            .map(|(peek, device, room)| (peek.until_ms, device.clone(), room.clone()))
            .collect();
        ended.sort_unstable();
        ended.truncate(MAKE_WAY);
        ended.iter().for_each(|(_, device, room)| self.remove(device, room));
        ended.into_iter().map(|(_, device, room)| (device, room)).collect()
    }
}

fn bad_state(message: &'static str) -> Error {
    Error::Custom { status: 400, errcode: "M_BAD_STATE", message: message.into() }
}

//! Wakes those who wait, after the commit and never from inside it.
//!
//! A waiter registers first, then samples the store's position, then builds its answer: nothing falls between.

use std::{collections::HashMap, hash::Hash, sync::Arc};

use parking_lot::Mutex;
use ruma::{OwnedRoomId, OwnedUserId, RoomId, UserId};
use tokio::sync::watch;

/// A generation counter for each of those for whom somebody waits.
type Channels<K> = HashMap<K, watch::Sender<u64>>;

/// One generation counter per user who waits, and per room that somebody looks at from outside; waking nobody costs a map
/// lookup.
#[derive(Debug, Default)]
pub struct Notifier {
    users: Mutex<Channels<OwnedUserId>>,
    rooms: Mutex<Channels<OwnedRoomId>>,
}

/// Resolves when something changed for its user, or in its room, since it was made.
#[derive(Debug)]
pub struct Waiter {
    receiver: watch::Receiver<u64>,
}

impl Notifier {
    /// Registers interest; changes from now on wake the waiter.
    pub fn subscribe(self: &Arc<Self>, user: &UserId) -> Waiter {
        wait_in(&mut self.users.lock(), user.to_owned())
    }

    /// Registers interest in a room, for those who are not in it.
    pub fn subscribe_room(self: &Arc<Self>, room: &RoomId) -> Waiter {
        wait_in(&mut self.rooms.lock(), room.to_owned())
    }

    /// Wakes everyone who waits for this user.
    pub fn wake_user(&self, user: &UserId) {
        if let Some(sender) = self.users.lock().get(user) {
            wake(sender);
        }
    }

    /// Wakes everyone who looks at this room from outside.
    pub fn wake_room(&self, room: &RoomId) {
        if let Some(sender) = self.rooms.lock().get(room) {
            wake(sender);
        }
    }

    /// Wakes everyone who waits for one of these users.
    pub fn wake_users<'a>(&self, wanted: impl IntoIterator<Item = &'a UserId>) {
        let users = self.users.lock();
        if users.is_empty() {
            return;
        }
        for user in wanted {
            if let Some(sender) = users.get(user) {
                wake(sender);
            }
        }
    }

    /// Wakes every member who waits, in time that follows from the smaller of both.
    pub fn wake_members(&self, members: &imbl::OrdSet<OwnedUserId>) {
        let users = self.users.lock();
        if users.len() < members.len() {
            users.iter().filter(|(user, _)| members.contains(*user)).for_each(|(_, sender)| wake(sender));
            return;
        }
        drop(users);
        self.wake_users(members.iter().map(|user| &**user));
    }
}

fn wait_in<K: Hash + Eq>(channels: &mut Channels<K>, key: K) -> Waiter {
    if channels.len() > 1024 && channels.len().is_power_of_two() {
        sweep(channels);
    }
    let sender = channels.entry(key).or_insert_with(|| watch::channel(0).0);
    Waiter { receiver: sender.subscribe() }
}

fn wake(sender: &watch::Sender<u64>) {
    sender.send_modify(|generation| *generation = generation.wrapping_add(1));
}

fn sweep<K: Hash + Eq>(channels: &mut Channels<K>) {
    channels.retain(|_, sender| sender.receiver_count() > 0);
}

impl Waiter {
    /// Resolves at the next change; at once if one came since the last call.
    pub async fn changed(&mut self) {
        if self.receiver.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(number: usize) -> OwnedUserId {
        OwnedUserId::try_from(format!("@u{number}:a.example")).unwrap()
    }

    #[tokio::test]
    async fn members_who_wait_are_woken_and_nobody_else_whichever_are_fewer() {
        for members in [1..3, 1..50] {
            let notifier = Arc::new(Notifier::default());
            let mut waiters: Vec<_> = (0..10).map(|number| (number, notifier.subscribe(&user(number)))).collect();
            let members: Vec<usize> = members.collect();
            notifier.wake_members(&members.iter().map(|number| user(*number)).collect());
            for (number, waiter) in &mut waiters {
                let woken = futures_util::poll!(std::pin::pin!(waiter.changed())).is_ready();
                assert_eq!(woken, members.contains(number), "{number} of {members:?}");
            }
        }
    }
}

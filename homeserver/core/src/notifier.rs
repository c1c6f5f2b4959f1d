//! Wakes those who wait, after the commit and never from inside it.
//!
//! A waiter registers first, then samples the store's position, then builds its answer: nothing falls between.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use ruma::{OwnedUserId, UserId};
use tokio::sync::watch;

/// One generation counter per user who waits; waking nobody costs a map lookup.
#[derive(Debug, Default)]
pub struct Notifier {
    users: Mutex<HashMap<OwnedUserId, watch::Sender<u64>>>,
}

/// Resolves when something changed for its user since it was made.
#[derive(Debug)]
pub struct Waiter {
    receiver: watch::Receiver<u64>,
}

impl Notifier {
    /// Registers interest; changes from now on wake the waiter.
    pub fn subscribe(self: &Arc<Self>, user: &UserId) -> Waiter {
        let mut users = self.users.lock();
        if users.len() > 1024 && users.len().is_power_of_two() {
            users.retain(|_, sender| sender.receiver_count() > 0);
        }
        let sender = users.entry(user.to_owned()).or_insert_with(|| watch::channel(0).0);
        Waiter { receiver: sender.subscribe() }
    }

    /// Wakes everyone who waits for this user.
    pub fn wake_user(&self, user: &UserId) {
        let users = self.users.lock();
        if let Some(sender) = users.get(user) {
            sender.send_modify(|generation| *generation = generation.wrapping_add(1));
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
                sender.send_modify(|generation| *generation = generation.wrapping_add(1));
            }
        }
    }

    /// Wakes every member who waits, in time that follows from the smaller of both.
    pub fn wake_members(&self, members: &imbl::OrdSet<OwnedUserId>) {
        let users = self.users.lock();
        if users.len() < members.len() {
            for (_, sender) in users.iter().filter(|(user, _)| members.contains(*user)) {
                sender.send_modify(|generation| *generation = generation.wrapping_add(1));
            }
            return;
        }
        drop(users);
        self.wake_users(members.iter().map(|user| &**user));
    }

    /// Drops the channels that nobody listens to.
    pub fn sweep(&self) {
        self.users.lock().retain(|_, sender| sender.receiver_count() > 0);
    }
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

//! Who has a pusher, so that an event asks for the pushers of those few and not of every member.

use std::collections::HashSet;

use matron_storage::{KeyRange, KeyReader, MAX_PAGE, Order, Table};
use parking_lot::Mutex;
use ruma::{OwnedUserId, UserId};

use crate::{Core, Error};

/// How many users are remembered; if more have pushers, everyone may have one.
const MAX_USERS: usize = 65_536;

/// Users who may have a pusher; all others have none. `None`: everyone may.
///
/// INVARIANT: a user comes in before the first pusher is written and stays until the next start.
#[derive(Debug)]
pub(super) struct Reached(Mutex<Option<HashSet<OwnedUserId>>>);

impl Default for Reached {
    fn default() -> Self {
        // Until the store was read.
        Self(Mutex::new(None))
    }
}

impl Reached {
    pub(super) fn add(&self, user: &UserId) {
        let mut known = self.0.lock();
        if let Some(users) = known.as_mut() {
            users.insert(user.to_owned());
            if users.len() > MAX_USERS {
                *known = None;
            }
        }
    }

    /// Those of the members who may have a pusher.
    pub(super) fn among(&self, members: &imbl::OrdSet<OwnedUserId>) -> Vec<OwnedUserId> {
        match self.0.lock().as_ref() {
            None => members.iter().cloned().collect(),
            Some(users) if users.len() < members.len() => {
                users.iter().filter(|user| members.contains(*user)).cloned().collect()
            }
            Some(users) => members.iter().filter(|user| users.contains(*user)).cloned().collect(),
        }
    }
}

impl Core {
    /// It is known who has a pusher.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(crate) fn start_push(&self) -> Result<(), Error> {
        let mut users = HashSet::new();
        let mut range = KeyRange::all();
        while users.len() <= MAX_USERS {
            let page = self.store.scan(Table::UserPusher, &range, Order::Ascending, MAX_PAGE)?;
            let Some((last, _)) = page.last() else { break };
            range = range.after(last);
            let names = page.iter().filter_map(|(key, _)| KeyReader::new(key).text());
            users.extend(names.filter_map(|name| OwnedUserId::try_from(name).ok()));
        }
        *self.push.reached.0.lock() = (users.len() <= MAX_USERS).then_some(users);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(number: usize) -> OwnedUserId {
        OwnedUserId::try_from(format!("@u{number}:a.example")).unwrap()
    }

    #[test]
    fn only_those_who_may_have_a_pusher_are_asked_and_everyone_may_when_it_is_not_known() {
        let members: imbl::OrdSet<OwnedUserId> = (0..10).map(user).collect();
        let reached = Reached::default();
        assert_eq!(reached.among(&members).len(), 10, "nothing was read yet");
        *reached.0.lock() = Some(HashSet::new());
        assert!(reached.among(&members).is_empty());
        reached.add(&user(3));
        reached.add(&user(77));
        assert_eq!(reached.among(&members), [user(3)]);
        for number in 100..=MAX_USERS + 100 {
            reached.add(&user(number));
        }
        assert_eq!(reached.among(&members).len(), 10, "too many to remember");
    }
}

//! Push rules, notification counts, and what push gateways are told.
//!
//! Rules are account data (`m.push_rules`), compiled once per user. Counts are not stored: they follow from the
//! timeline, the receipts and the rules, are kept in memory for warm users and counted anew for cold ones, so that a
//! message costs no write per member, and what expired is no longer counted.

mod compile;
mod counts;
mod defaults;
mod edit;
mod evaluate;
mod expected;
mod gateway;
mod invite;
mod new_event;
mod notifications;
mod pattern;
mod pusher;
mod reached;
mod rules;
mod worker;

pub use compile::CompiledRules;
pub(crate) use counts::timeline_event;
pub use counts::{Counts, Unread};
pub use edit::{Place, RuleBody};
pub use evaluate::{Actions, Context, EventView, evaluate};
pub(crate) use expected::Uncounted;
pub use new_event::{NewEvent, RoomContext};
pub use notifications::{Notification, NotificationPage};
pub use pusher::{Pusher, PusherRequest};
pub use rules::{Kind, Rule, Ruleset};

use std::{collections::BTreeSet, num::NonZeroUsize, sync::Arc};

use lru::LruCache;
use matron_storage::StreamPos;
use parking_lot::Mutex;
use ruma::{OwnedRoomId, OwnedUserId, RoomId, UserId};

use crate::accounts::Warm;

/// How many users' compiled rules and pushers are remembered.
const WARM_USERS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(16_383);

/// How many counts of a user in a room are remembered.
const WARM_COUNTS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(131_071);

/// What this concern keeps in memory; truth lives in the store.
#[derive(Debug)]
pub struct State {
    rules: Warm<Arc<CompiledRules>>,
    counts: Mutex<counts::CountCache>,
    expected: expected::Expected,
    pushers: Warm<Arc<Vec<Pusher>>>,
    reached: reached::Reached,
    jobs: worker::Jobs,
    /// What each pusher was last told of how much is unread.
    badges: Mutex<LruCache<(OwnedUserId, pusher::PusherId), u64>>,
}

/// Receipts on their way to the disk.
#[derive(Debug)]
pub(crate) struct Moving<'a> {
    state: &'a State,
    users: BTreeSet<OwnedUserId>,
    room: OwnedRoomId,
}

impl Drop for Moving<'_> {
    fn drop(&mut self) {
        let mut counts = self.state.counts.lock();
        self.users.iter().for_each(|user| counts.end_move(user, &self.room));
    }
}

impl Default for State {
    fn default() -> Self {
        Self {
            rules: Warm::new(WARM_USERS),
            counts: Mutex::new(counts::CountCache::new(WARM_COUNTS)),
            expected: expected::Expected::default(),
            pushers: Warm::new(WARM_USERS),
            reached: reached::Reached::default(),
            jobs: worker::Jobs::default(),
            badges: Mutex::new(LruCache::new(WARM_USERS)),
        }
    }
}

impl State {
    /// An event comes to the end of the room's timeline: see [`expected`].
    pub(crate) fn expect_event(&self, room: &RoomId, now: StreamPos) -> Uncounted {
        self.expected.expect(room, now)
    }

    /// The user's rules are compiled anew the next time.
    pub(crate) fn forget_rules(&self, user: &UserId) {
        self.rules.forget(user);
        self.counts.lock().forget_user(user);
    }

    /// Everybody's counts in the room are counted anew the next time.
    pub(crate) fn forget_room_counts(&self, room: &RoomId) {
        self.counts.lock().forget_room(room);
    }

    /// The users' receipts of the room are about to move, until the guard goes.
    pub(crate) fn begin_move(&self, users: BTreeSet<OwnedUserId>, room: &RoomId) -> Moving<'_> {
        let room = room.to_owned();
        let mut counts = self.counts.lock();
        users.iter().for_each(|user| counts.begin_move(user, &room));
        drop(counts);
        Moving { state: self, users, room }
    }

    /// The user's counts in the room are counted anew the next time.
    pub(crate) fn forget_counts(&self, user: &UserId, room: &OwnedRoomId) {
        self.counts.lock().forget(user, room);
    }
}

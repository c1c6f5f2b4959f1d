//! Presence and typing: what is never written to a room.
//!
//! Both live in memory and share one *ephemeral serial*, which only grows, over restarts too: `/sync` carries it beside the
//! stream position and asks for what changed since. The last presence of each local user is kept in the store.
//!
//! - [`status`]: setting and reading presence. [`sessions`]: what syncing and idling do to it. [`federated`]: `m.presence`.
//! - [`typing`]: who types where, `m.typing`.

pub mod federated;
pub mod sessions;
pub mod status;
pub mod typing;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use ruma::{OwnedRoomId, OwnedUserId};
use tokio::sync::watch;

pub use self::status::{Presence, PresenceUpdate};
use self::{
    status::{Entry, Status},
    typing::RoomTyping,
};
use crate::Core;

/// How often timeouts are looked at.
const TICK: Duration = Duration::from_secs(2);

/// What this concern keeps in memory; truth lives in the store.
#[derive(Debug, Default)]
pub struct State {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    last_serial: u64,
    users: HashMap<OwnedUserId, Entry>,
    by_serial: BTreeMap<u64, OwnedUserId>,
    typing: BTreeMap<OwnedRoomId, RoomTyping>,
    /// Presence of remote users with whom nobody here shares a room yet, and until when it is worth keeping, ms since the
    /// epoch: a server that we join tells us of its users before the join is done here.
    early: BTreeMap<OwnedUserId, (u64, Status)>,
}

impl Inner {
    /// INVARIANT: given out under the lock that also guards what it numbers, so who samples it sees everything up to it.
    fn next_serial(&mut self, now_ms: u64) -> u64 {
        // A thousand changes each millisecond before the serial runs ahead of the clock; larger than any before a restart.
        self.last_serial = self.last_serial.saturating_add(1).max(now_ms.saturating_mul(1024));
        self.last_serial
    }
}

impl Core {
    /// The serial up to which presence and typing are visible: what `/sync` remembers in its token.
    #[must_use]
    pub fn ephemeral_serial(&self) -> u64 {
        let now_ms = self.now_ms();
        let mut inner = self.presence.inner.lock();
        if inner.last_serial == 0 { inner.next_serial(now_ms) } else { inner.last_serial }
    }

    /// Ends what timed out, until `stop` turns true.
    pub async fn run_presence(self: &Arc<Self>, mut stop: watch::Receiver<bool>) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = crate::house::stopped(&mut stop) => return,
                _ = tick.tick() => self.presence_tick().await,
            }
        }
    }

    /// What timed out by now is ended: typing, idle and vanished users.
    pub async fn presence_tick(&self) {
        self.end_typing();
        if let Err(error) = self.age_presence().await {
            tracing::warn!(%error, "presence that timed out could not be told");
        }
    }
}

//! Events from outside, handshakes, and what peers may read.

pub mod acl;
mod backfill;
mod client;
mod errand;
pub(crate) mod fetch;
pub(crate) mod gaps;
pub mod graph;
pub mod handshake;
pub mod keys;
mod probe;
pub mod receive;
pub mod serve;
pub mod state_at;

pub(crate) use fetch::peer_error;
pub(crate) use probe::plain_status;

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use ruma::{OwnedRoomId, OwnedServerName, RoomId, ServerName};

/// What this concern keeps in memory; truth lives in the store.
#[derive(Debug, Default)]
pub struct State {
    /// Signing keys of servers.
    pub(crate) keys: keys::State,
    /// Where history is missing in timelines.
    pub(crate) timeline_gaps: gaps::Gaps,
    /// One receiver per room at a time, so that nothing is fetched twice.
    turns: Mutex<HashMap<OwnedRoomId, Arc<tokio::sync::Mutex<()>>>>,
    /// One transaction per peer at a time, as the specification demands of its sender.
    transactions: Mutex<HashMap<OwnedServerName, Arc<tokio::sync::Mutex<()>>>>,
    /// Peers for whose events nothing is fetched for a while.
    pub(crate) paused: errand::Paused,
    /// What authorises the events that auth chains led through.
    pub(crate) authorities: graph::Authorities,
    /// History that nobody gave when it was asked for.
    pub(crate) gaps: receive::Gaps,
    /// How many transactions were taken: old answers are forgotten every so often.
    pub(crate) taken: std::sync::atomic::AtomicU64,
}

/// How many transactions of one peer wait for the one before.
const MAX_WAITING: usize = 16;

impl State {
    /// What a receiver of this room's events must hold.
    pub(crate) fn room_turn(&self, room: &RoomId) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.turns.lock();
        if turns.len() > 1024 {
            turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        }
        Arc::clone(turns.entry(room.to_owned()).or_default())
    }

    /// What a receiver of this peer's transactions must hold; `None` if too many wait for it already.
    pub(crate) fn transaction_turn(&self, peer: &ServerName) -> Option<Arc<tokio::sync::Mutex<()>>> {
        let mut turns = self.transactions.lock();
        if turns.len() > 1024 {
            turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        }
        let turn = turns.entry(peer.to_owned()).or_default();
        (Arc::strong_count(turn) <= MAX_WAITING).then(|| Arc::clone(turn))
    }
}

//! Events from outside, handshakes, and what peers may read.

pub mod acl;
mod backfill;
mod client;
mod fetch;
pub mod graph;
pub mod handshake;
pub mod keys;
mod probe;
pub mod receive;
pub mod serve;
pub mod state_at;

pub(crate) use fetch::peer_error;

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use ruma::{OwnedRoomId, RoomId};

/// What this concern keeps in memory; truth lives in the store.
#[derive(Debug, Default)]
pub struct State {
    /// Signing keys of servers.
    pub(crate) keys: keys::State,
    /// One receiver per room at a time, so that nothing is fetched twice.
    turns: Mutex<HashMap<OwnedRoomId, Arc<tokio::sync::Mutex<()>>>>,
}

impl State {
    /// What a receiver of this room's events must hold.
    pub(crate) fn room_turn(&self, room: &RoomId) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.turns.lock();
        if turns.len() > 1024 {
            turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        }
        Arc::clone(turns.entry(room.to_owned()).or_default())
    }
}

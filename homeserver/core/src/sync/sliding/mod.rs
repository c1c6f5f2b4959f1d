//! Simplified sliding sync (MSC4186): windows on a user's rooms instead of all of them.
//!
//! It stands on the same stream as `/sync`: a waiter registers, the position is sampled, and the answer is built from
//! what is visible at or below it. What a connection was told is kept by `pos` and room: a room that is out of the
//! windows falls behind, and is told from there when it comes back into one.

pub mod answer;
mod connection;
mod extensions;
mod heroes;
mod order;
pub mod request;
mod required;
mod room;
mod select;

use std::{num::NonZeroUsize, sync::Arc, time::Duration};

use lru::LruCache;
use matron_storage::StreamPos;
use parking_lot::Mutex;
use ruma::{OwnedRoomId, OwnedUserId};

pub use self::{answer::SlidingAnswer, request::SlidingRequest};
use self::{connection::Position, heroes::Faces, order::RoomOrder};
use super::MAX_TIMEOUT_MS;
use crate::{Core, Error, Requester, rooms::GroupId, threads::SubscriptionChanges};

/// How many users' orders are kept.
const ORDERS: usize = 4_096;
/// How many rooms' places and members' names are kept.
const ROOMS: usize = 16_384;

/// What this concern keeps in memory; truth lives in the store, and a lost connection starts over.
#[derive(Debug)]
pub struct State {
    connections: connection::Connections,
    orders: Mutex<LruCache<OwnedUserId, RoomOrder>>,
    /// The last event that moved a room up, as of a position.
    bumps: Mutex<LruCache<OwnedRoomId, (StreamPos, u64)>>,
    /// Whose names make up a room's, in a state of it.
    faces: Mutex<LruCache<OwnedRoomId, (GroupId, Arc<Faces>)>>,
}

impl Default for State {
    fn default() -> Self {
        let size = |size| NonZeroUsize::new(size).unwrap_or(NonZeroUsize::MIN);
        Self {
            connections: connection::Connections::default(),
            orders: Mutex::new(LruCache::new(size(ORDERS))),
            bumps: Mutex::new(LruCache::new(size(ROOMS))),
            faces: Mutex::new(LruCache::new(size(ROOMS))),
        }
    }
}

impl Core {
    /// Changes of the threads that the user follows, between what two tokens of sliding syncs or of such pages say.
    /// Gives the token of those before, if there are any.
    ///
    /// # Errors
    /// [`Error::InvalidParam`] for a token that is none; [`Error::Store`].
    pub fn subscription_page(
        &self,
        requester: &Requester,
        from: Option<&str>,
        to: Option<&str>,
        limit: Option<u64>,
    ) -> Result<(SubscriptionChanges, Option<String>), Error> {
        let before = match from {
            Some(from) => {
                let position: u64 = from.parse().map_err(|_| Error::invalid("`from` is not a token of this server"))?;
                StreamPos(position.saturating_sub(1)).min(self.position())
            }
            None => self.position(),
        };
        // A connection that was forgotten bounds nothing: the client is told of changes again that it knows.
        let after = to.and_then(|pos| self.sync.sliding.connections.stream_of(requester, pos)).unwrap_or_default();
        let changes = self.subscription_changes(&requester.user_id, after, before, limit)?;
        let end = changes.before.map(|position| position.0.to_string());
        Ok((changes, end))
    }

    /// What is new in the windows since `pos`; waits for something if there is nothing.
    ///
    /// # Errors
    /// [`Error::UnknownPos`] when the client must start over; [`Error::InvalidParam`] for a request beyond its bounds;
    /// [`Error::Store`].
    pub async fn sliding_sync(
        self: &Arc<Self>,
        requester: &Requester,
        pos: Option<&str>,
        timeout_ms: u64,
        request: &SlidingRequest,
    ) -> Result<SlidingAnswer, Error> {
        request.check()?;
        let conn_id = request.conn_id.as_deref();
        let known = match pos {
            Some(pos) => self.sync.sliding.connections.resume(requester, conn_id, pos)?,
            None => Position::default(),
        };
        self.acknowledge_to_device(requester, request).await?;
        let deadline = tokio::time::Instant::now() + Duration::from_millis(timeout_ms.min(MAX_TIMEOUT_MS));
        let mut waiter = self.notifier.subscribe(&requester.user_id);
        loop {
            let (mut answer, position) = self.build_sliding(requester, request, &known)?;
            if pos.is_none() || !answer.is_empty() || tokio::time::Instant::now() >= deadline {
                answer.pos = self.sync.sliding.connections.keep(requester, conn_id, position);
                answer.txn_id.clone_from(&request.txn_id);
                return Ok(answer);
            }
            tokio::select! {
                () = waiter.changed() => {}
                () = tokio::time::sleep_until(deadline) => {}
            }
        }
    }
}

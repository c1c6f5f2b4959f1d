//! One stream, told to each client exactly once.
//!
//! A waiter registers first, then the position is sampled, then the answer is built from what is visible at
//! or below that position: nothing is lost, repeated or reordered. An incremental sync looks at the rooms
//! that changed ([`crate::rooms::ChangeLog`]), not at all that are joined.

pub mod answer;
mod build;
mod counts;
mod event_stream;
mod joined;
mod left;
mod members;
mod peeked;
pub mod sliding;
pub mod timeline;
pub mod token;

use std::{
    collections::{BTreeSet, HashMap},
    num::NonZeroUsize,
    sync::Arc,
    time::Duration,
};

use lru::LruCache;
use matron_storage::{StoreError, StreamPos};
use parking_lot::Mutex;
use ruma::{OwnedDeviceId, OwnedEventId, OwnedRoomId, OwnedUserId};

pub use self::{answer::SyncAnswer, token::SyncToken};
use crate::{Core, Error, Requester, accounts::Filter};

/// Of how many (device, room) pairs it is remembered which members were told.
const TOLD_CACHE: usize = 8192;

/// The longest that a sync waits, ms.
pub(crate) const MAX_TIMEOUT_MS: u64 = 5 * 60 * 1000;

type Told = LruCache<(OwnedUserId, OwnedDeviceId, OwnedRoomId), HashMap<OwnedUserId, OwnedEventId>>;

/// What this concern keeps in memory; truth lives in the store.
#[derive(Debug)]
pub struct State {
    /// Which members a device that loads them lazily was told; losing it only repeats some.
    told: Mutex<Told>,
    /// Simplified sliding sync.
    sliding: sliding::State,
}

impl Default for State {
    fn default() -> Self {
        Self {
            told: Mutex::new(LruCache::new(NonZeroUsize::new(TOLD_CACHE).unwrap_or(NonZeroUsize::MIN))),
            sliding: sliding::State::default(),
        }
    }
}

/// What a client asks.
#[derive(Clone, Debug, Default)]
pub struct SyncRequest {
    /// Where the last answer ended; `None`: everything.
    pub since: Option<SyncToken>,
    /// What it wants to be told.
    pub filter: Arc<Filter>,
    /// All state, not only what changed.
    pub full_state: bool,
    /// How long to wait if there is nothing, ms.
    pub timeout_ms: u64,
    /// Nothing that came after this is told.
    pub up_to: Option<StreamPos>,
}

impl Core {
    /// Everything that changed for the user since the token; waits for a change if there is none.
    ///
    /// # Errors
    /// [`Error::Store`]; [`Error::InvalidParam`] for a token from the future.
    pub async fn sync(self: &Arc<Self>, requester: &Requester, request: SyncRequest) -> Result<SyncAnswer, Error> {
        if let (Some(since), Some(device)) = (&request.since, &requester.device_id) {
            match self.to_device_acknowledge(&requester.user_id, device, since.to_device).await {
                // What is not taken away now is taken away by the next sync; reading goes on meanwhile.
                Err(Error::Store(StoreError::Full)) => tracing::warn!("the disk is full: messages that arrived stay"),
                acknowledged => acknowledged?,
            }
        }
        let deadline = tokio::time::Instant::now() + Duration::from_millis(request.timeout_ms.min(MAX_TIMEOUT_MS));
        let mut waiter = self.notifier.subscribe(&requester.user_id);
        if self.knows_nothing_newer(&request) {
            tokio::select! {
                () = waiter.changed() => {}
                () = tokio::time::sleep_until(deadline) => {}
            }
        }
        loop {
            let answer = self.build_sync(requester, &request).await?;
            let now = tokio::time::Instant::now();
            if request.since.is_none() || request.full_state || !answer.is_empty() || now >= deadline {
                return Ok(answer);
            }
            tokio::select! {
                () = waiter.changed() => {}
                () = tokio::time::sleep_until(deadline) => {}
            }
        }
    }
}

impl Core {
    /// Whether the token stands where the server does, so that there is nothing to build an answer of yet.
    fn knows_nothing_newer(&self, request: &SyncRequest) -> bool {
        let Some(since) = request.since.filter(|_| !request.full_state) else { return false };
        let ephemeral = self.ephemeral_serial();
        since.ephemeral == ephemeral && since.to_device == since.stream && since.stream == self.position()
    }
}

/// Users whose events are not told.
type Ignored = Arc<BTreeSet<OwnedUserId>>;

//! Kept connections: at most so many per destination, at most so many in all.

use std::{num::NonZeroUsize, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use lru::LruCache;
use matron_core::ports::PeerError;
use parking_lot::Mutex;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout},
};

use crate::{
    config::NetConfig,
    dial::{Dialer, Route},
};

/// How many destinations are remembered.
const MAX_DESTINATIONS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(4095);
/// Response headers, bytes.
const MAX_HEADER_BYTES: usize = 64 * 1024;

/// So much of an answer is read without asking for room, bytes.
pub(crate) const SMALL_ANSWER_BYTES: usize = 4 * MIB;
const MIB: usize = 1024 * 1024;

/// The sending half of an HTTP/1.1 connection.
pub(crate) type Sender = SendRequest<Full<Bytes>>;

/// Kept connections by destination.
#[derive(Debug)]
pub(crate) struct Pool {
    destinations: Mutex<LruCache<String, Arc<Destination>>>,
    connections: Arc<Semaphore>,
    /// MiB for large answers.
    memory: Arc<Semaphore>,
    memory_per_destination_mib: usize,
    per_destination: usize,
    idle_per_destination: usize,
    idle_timeout: Duration,
}

#[derive(Debug)]
struct Destination {
    idle: Mutex<Vec<Idle>>,
    permits: Arc<Semaphore>,
    /// MiB for large answers.
    memory: Arc<Semaphore>,
}

/// Room for a large answer, given back when this goes.
#[derive(Debug)]
pub(crate) struct Room {
    of_destination: OwnedSemaphorePermit,
    of_all: OwnedSemaphorePermit,
    mib: usize,
}

impl Room {
    /// There is room for so many bytes beyond what needs none.
    ///
    /// # Errors
    /// [`PeerError::TooLarge`] when answers hold as much already as they may: nobody waits, so nobody who is slow to give what
    /// it began can keep others waiting.
    pub(crate) fn grow_to(&mut self, bytes: usize) -> Result<(), PeerError> {
        let needed = bytes.saturating_sub(SMALL_ANSWER_BYTES).div_ceil(MIB);
        let more = u32::try_from(needed.saturating_sub(self.mib)).unwrap_or(u32::MAX);
        if more > 0 {
            let take = |held: &OwnedSemaphorePermit| Arc::clone(held.semaphore()).try_acquire_many_owned(more);
            let (Ok(of_destination), Ok(of_all)) = (take(&self.of_destination), take(&self.of_all)) else {
                return Err(PeerError::TooLarge);
            };
            self.of_destination.merge(of_destination);
            self.of_all.merge(of_all);
            self.mib = needed;
        }
        Ok(())
    }
}

#[derive(Debug)]
struct Idle {
    sender: Sender,
    since: Instant,
    place_in_all: OwnedSemaphorePermit,
}

/// A connection that one request has to itself.
#[derive(Debug)]
pub(crate) struct Lease {
    /// Where to send.
    pub(crate) sender: Sender,
    /// It has served before, so the other end may have closed it meanwhile.
    pub(crate) reused: bool,
    destination: Arc<Destination>,
    place_in_all: OwnedSemaphorePermit,
    _permit: OwnedSemaphorePermit,
}

impl Pool {
    /// An empty pool within the bounds of the configuration.
    pub(crate) fn new(config: &NetConfig) -> Self {
        Self {
            destinations: Mutex::new(LruCache::new(MAX_DESTINATIONS)),
            connections: Arc::new(Semaphore::new(config.max_connections.clamp(1, Semaphore::MAX_PERMITS))),
            memory: Arc::new(Semaphore::new(config.max_answers_mib.min(Semaphore::MAX_PERMITS))),
            memory_per_destination_mib: config.max_answers_per_destination_mib.min(Semaphore::MAX_PERMITS),
            per_destination: config.max_connections_per_destination.clamp(1, Semaphore::MAX_PERMITS),
            idle_per_destination: config.max_idle_per_destination,
            idle_timeout: Duration::from_millis(config.idle_timeout_ms),
        }
    }

    /// A connection to the destination `key`, kept or (always, if `fresh`) new.
    ///
    /// # Errors
    /// As [`Dialer::dial`].
    pub(crate) async fn lease(
        &self,
        dialer: &Dialer,
        key: &str,
        route: &Route,
        fresh: bool,
    ) -> Result<Lease, PeerError> {
        let destination = self.destination(key);
        let permit = acquire(&destination.permits).await?;
        while !fresh && let Some(mut idle) = self.take_idle(&destination) {
            // A connection that is still reading the end of its last answer is not worth the wait.
            if matches!(timeout(Duration::ZERO, idle.sender.ready()).await, Ok(Ok(()))) {
                return Ok(Lease {
                    sender: idle.sender,
                    reused: true,
                    destination,
                    place_in_all: idle.place_in_all,
                    _permit: permit,
                });
            }
        }
        let place_in_all = self.place_in_all().await?;
        let stream = dialer.dial(route).await?;
        let (sender, connection) = Builder::new()
            .max_header_size(MAX_HEADER_BYTES)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| PeerError::Connect(error.to_string()))?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::trace!(%error, "a connection to another server ended");
            }
        });
        Ok(Lease { sender, reused: false, destination, place_in_all, _permit: permit })
    }

    /// Room for an answer that comes over this connection.
    ///
    /// # Errors
    /// [`PeerError::Connect`] when the server stops.
    pub(crate) fn room_for(&self, lease: &Lease) -> Result<Room, PeerError> {
        let none = |of: &Arc<Semaphore>| Arc::clone(of).try_acquire_many_owned(0).map_err(|_closed| stopping());
        Ok(Room { of_destination: none(&lease.destination.memory)?, of_all: none(&self.memory)?, mib: 0 })
    }

    /// Keeps the connection for the next request, if there is room; its answer must have been read to the end.
    pub(crate) fn give_back(&self, lease: Lease) {
        if lease.sender.is_closed() {
            return;
        }
        let Lease { sender, destination, place_in_all, .. } = lease;
        let mut idle = destination.idle.lock();
        self.drop_stale(&mut idle);
        if idle.len() < self.idle_per_destination {
            idle.push(Idle { sender, since: Instant::now(), place_in_all });
        }
    }

    fn destination(&self, key: &str) -> Arc<Destination> {
        let mut destinations = self.destinations.lock();
        let fresh = || {
            Arc::new(Destination {
                idle: Mutex::default(),
                permits: Arc::new(Semaphore::new(self.per_destination)),
                memory: Arc::new(Semaphore::new(self.memory_per_destination_mib)),
            })
        };
        Arc::clone(destinations.get_or_insert_ref(key, fresh))
    }

    fn take_idle(&self, destination: &Destination) -> Option<Idle> {
        let mut idle = destination.idle.lock();
        self.drop_stale(&mut idle);
        idle.pop()
    }

    fn drop_stale(&self, idle: &mut Vec<Idle>) {
        idle.retain(|idle| idle.since.elapsed() < self.idle_timeout && !idle.sender.is_closed());
    }

    /// One of the places for connections; when all are taken, idle ones make room.
    async fn place_in_all(&self) -> Result<OwnedSemaphorePermit, PeerError> {
        if let Ok(permit) = Arc::clone(&self.connections).try_acquire_owned() {
            return Ok(permit);
        }
        for (_, destination) in self.destinations.lock().iter() {
            destination.idle.lock().clear();
        }
        acquire(&self.connections).await
    }
}

async fn acquire(permits: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, PeerError> {
    Arc::clone(permits).acquire_owned().await.map_err(|_closed| stopping())
}

fn stopping() -> PeerError {
    PeerError::Connect("shutting down".to_owned())
}

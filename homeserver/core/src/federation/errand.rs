//! What one received event may cost: everything that is fetched for it shares one bound of time and of questions.
//!
//! A peer chooses what an event refers to and how it answers when asked for that. Without a common bound, each of its
//! answers could lead to the next question, while the room's other events wait.

use std::{
    future::Future,
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use lru::LruCache;
use parking_lot::Mutex;
use ruma::{OwnedServerName, ServerName};

use crate::{Core, Error};

/// How long everything takes together that is fetched for one event.
const LONGEST: Duration = Duration::from_secs(120);
/// How many questions are asked for one event.
const MAX_QUESTIONS: u32 = 600;
/// For how long nothing is fetched for the events of a peer that let us wait, or led nowhere, ms.
const PAUSE_MS: u64 = 2 * 60 * 1000;
/// How many such peers are remembered.
const MAX_PEERS: NonZeroUsize = NonZeroUsize::new(1024).unwrap();

tokio::task_local! {
    static ERRAND: Arc<Errand>;
}

/// The fetching for one received event.
#[derive(Debug)]
struct Errand {
    /// Who sent the event.
    origin: OwnedServerName,
    began: Instant,
    questions: AtomicU32,
}

/// Peers for whose events nothing is fetched for a while, and until when, ms.
#[derive(Debug)]
pub(crate) struct Paused(Mutex<LruCache<OwnedServerName, u64>>);

impl Default for Paused {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(MAX_PEERS)))
    }
}

fn given_up() -> Error {
    Error::Peer("fetching what this event refers to takes too long".into())
}

impl Core {
    /// Does the work; what it fetches is bounded together, and is not fetched at all for a peer that let us wait lately.
    pub(super) async fn on_errand<T>(&self, origin: &ServerName, work: impl Future<Output = T>) -> T {
        let errand = Errand { origin: origin.to_owned(), began: Instant::now(), questions: AtomicU32::new(0) };
        ERRAND.scope(Arc::new(errand), work).await
    }

    /// How long the next question may take; `timeout` where nothing bounds it.
    ///
    /// # Errors
    /// [`Error::Peer`] when the errand has cost enough.
    pub(super) fn next_question(&self, timeout: Duration) -> Result<Duration, Error> {
        let Ok(errand) = ERRAND.try_with(Arc::clone) else { return Ok(timeout) };
        let now_ms = self.now_ms();
        if self.inbound.paused.0.lock().peek(&errand.origin).is_some_and(|until| *until > now_ms) {
            return Err(given_up());
        }
        let left = LONGEST.saturating_sub(errand.began.elapsed());
        if left.is_zero() || errand.questions.fetch_add(1, Ordering::Relaxed) >= MAX_QUESTIONS {
            self.pause(&errand.origin);
            return Err(given_up());
        }
        Ok(timeout.min(left))
    }

    /// The server did not answer in time: if the errand is for its own event, it is not asked again soon.
    pub(super) fn let_us_wait(&self, server: &ServerName) {
        if let Ok(errand) = ERRAND.try_with(Arc::clone)
            && errand.origin == server
        {
            self.pause(server);
        }
    }

    fn pause(&self, server: &ServerName) {
        tracing::info!(peer.name = %server, "for a while nothing is fetched for the events of this server");
        self.inbound.paused.0.lock().put(server.to_owned(), self.now_ms().saturating_add(PAUSE_MS));
    }
}

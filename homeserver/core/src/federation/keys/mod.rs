//! Signing keys of servers: ours published, others' fetched, remembered and vouched for.
//!
//! - [`own`]: what we publish. [`record`]: what we remember of a server. [`fetch`]: from memory, store or network.
//! - [`notary`]: what we vouch for. [`events`]: the keys that an event needs. [`x_matrix`], [`request`]: who asks.
//!
//! Spec: <https://spec.matrix.org/v1.19/server-server-api/#retrieving-server-keys>.

mod ask_notary;
pub mod events;
pub mod fetch;
pub mod notary;
pub mod own;
pub mod record;
pub mod request;
pub mod x_matrix;

#[cfg(test)]
mod tests;

use std::{collections::HashMap, num::NonZeroUsize, sync::Arc};

use lru::LruCache;
use parking_lot::Mutex;
use ruma::{OwnedServerName, ServerName};
use tokio::sync::Semaphore;

use record::ServerKeys;

/// How many servers' keys are kept in memory.
const MAX_SERVERS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(4095);
/// How many key documents are fetched at once.
const MAX_FETCHES: usize = 32;

/// What is remembered between requests; truth lives in `server_key`.
#[derive(Debug)]
pub struct State {
    /// Keys by server, as stored.
    known: Mutex<LruCache<OwnedServerName, Arc<ServerKeys>>>,
    /// When a server may be asked next.
    asked: Mutex<LruCache<OwnedServerName, Asked>>,
    /// Servers that are being asked right now: whoever else needs their keys waits for that answer.
    in_flight: Mutex<HashMap<OwnedServerName, Arc<tokio::sync::Mutex<()>>>>,
    /// A place for each fetch.
    fetches: Semaphore,
}

/// How asking a server went last.
#[derive(Clone, Copy, Debug, Default)]
struct Asked {
    /// How often, ever: who waited for an answer sees by it that there was one.
    times: u64,
    /// How often in a row it could not be reached.
    failures: u32,
    /// When it may be asked next, ms.
    next_ms: u64,
    /// How often it was asked since `burst_from_ms`.
    burst: u32,
    burst_from_ms: u64,
}

impl State {
    /// The server may be asked for its keys now, though it did not answer lately.
    pub(crate) fn ask_again(&self, server: &ServerName) {
        self.asked.lock().pop(server);
    }
}

impl Default for State {
    fn default() -> Self {
        Self {
            known: Mutex::new(LruCache::new(MAX_SERVERS)),
            asked: Mutex::new(LruCache::new(MAX_SERVERS)),
            in_flight: Mutex::default(),
            fetches: Semaphore::new(MAX_FETCHES),
        }
    }
}

//! Who could not be reached lately, and until when they are left alone.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    num::NonZeroUsize,
};

use lru::LruCache;
use parking_lot::Mutex;
use ruma::{OwnedServerName, ServerName};

const MAX_SERVERS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(4095);
/// Half of the outbox's own first wait, so that it never meets this one when it comes back.
const FIRST_MS: u64 = 500;
const LONGEST_MS: u64 = 60_000;

#[derive(Clone, Copy, Debug)]
struct Failing {
    times: u32,
    until_ms: u64,
}

/// Doubling waits per server, spread so that peers do not all come back at once.
#[derive(Debug)]
pub(crate) struct Backoff {
    servers: Mutex<LruCache<OwnedServerName, Failing>>,
}

impl Backoff {
    pub(crate) fn new() -> Self {
        Self { servers: Mutex::new(LruCache::new(MAX_SERVERS)) }
    }

    /// The time before which the server should not be asked, ms; `None` when it may be asked now.
    pub(crate) fn until_ms(&self, server: &ServerName, now_ms: u64) -> Option<u64> {
        let failing = *self.servers.lock().peek(server)?;
        (failing.until_ms > now_ms).then_some(failing.until_ms)
    }

    /// The server could not be reached. Failures during one wait count once.
    pub(crate) fn failed(&self, server: &ServerName, now_ms: u64) {
        let mut servers = self.servers.lock();
        let times = match servers.get(server) {
            Some(failing) if failing.until_ms > now_ms => return,
            Some(failing) => failing.times.saturating_add(1),
            None => 0,
        };
        let wait_ms = FIRST_MS.saturating_mul(1_u64 << times.min(20)).min(LONGEST_MS);
        let until_ms = now_ms.saturating_add(wait_ms).saturating_add(spread(server, times, wait_ms));
        servers.put(server.to_owned(), Failing { times, until_ms });
    }

    /// The server is there after all.
    pub(crate) fn succeeded(&self, server: &ServerName) {
        self.servers.lock().pop(server);
    }
}

/// Up to a quarter of the wait, the same for the same server and attempt.
fn spread(server: &ServerName, times: u32, wait_ms: u64) -> u64 {
    let mut hasher = DefaultHasher::new();
    (server.as_str(), times).hash(&mut hasher);
    hasher.finish() % (wait_ms / 4).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_bound_and_end_when_the_server_is_heard() {
        let backoff = Backoff::new();
        let server = <&ServerName>::try_from("a.example").unwrap();
        let mut now_ms = 1_000_000;
        let mut last_wait = 0;
        for _ in 0..40 {
            backoff.failed(server, now_ms);
            let until_ms = backoff.until_ms(server, now_ms).unwrap();
            let wait = until_ms - now_ms;
            assert!(wait >= last_wait.min(LONGEST_MS) && wait <= LONGEST_MS + LONGEST_MS / 4, "{wait}");
            backoff.failed(server, now_ms + 1);
            assert_eq!(backoff.until_ms(server, now_ms), Some(until_ms), "a second failure in one wait counts not");
            last_wait = wait;
            now_ms = until_ms;
            assert_eq!(backoff.until_ms(server, now_ms), None);
        }
        assert!(last_wait >= LONGEST_MS);
        backoff.failed(server, now_ms);
        backoff.succeeded(server);
        assert_eq!(backoff.until_ms(server, now_ms), None);
    }
}

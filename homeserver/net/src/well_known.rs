//! `/.well-known/matrix/server`: fetched rarely, remembered within bounds.
//!
//! Spec: <https://spec.matrix.org/v1.19/server-server-api/#getwell-knownmatrixserver>.

use std::{collections::HashMap, num::NonZeroUsize, sync::Arc, time::Duration};

use http::{
    HeaderMap, Method,
    header::{CACHE_CONTROL, LOCATION},
};
use lru::LruCache;
use matron_core::ports::{Clock, PeerError};
use parking_lot::Mutex;
use ruma::{OwnedServerName, ServerName};
use serde::Deserialize;
use url::Url;

use crate::{
    exchange::{Exchanger, Outgoing},
    url_target::{Trust, target_of},
};

const MAX_HOSTS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(4095);
const MAX_BYTES: usize = 50 * 1024;
const MAX_REDIRECTS: usize = 5;
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);
const MINUTE_MS: u64 = 60_000;
const HOUR_MS: u64 = 60 * MINUTE_MS;
/// Without `Cache-Control`.
const DEFAULT_MS: u64 = 24 * HOUR_MS;
/// Whatever `Cache-Control` says.
const SHORTEST_MS: u64 = 5 * MINUTE_MS;
const LONGEST_MS: u64 = 48 * HOUR_MS;
/// Beyond so many turns, abandoned ones are swept.
const MAX_TURNS: usize = 1024;

/// What is known of one host.
#[derive(Clone, Debug)]
struct Known {
    delegated: Option<OwnedServerName>,
    fetched_ms: u64,
    expires_ms: u64,
    failures: u32,
}

/// Delegations by host name.
#[derive(Debug)]
pub(crate) struct WellKnown {
    clock: Arc<dyn Clock>,
    known: Mutex<LruCache<String, Known>>,
    /// One fetch per host at a time; a host that does not answer holds up nobody else.
    turns: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

#[derive(Deserialize)]
struct Document {
    #[serde(rename = "m.server")]
    server: OwnedServerName,
}

/// Why there is no delegation.
enum Miss {
    /// The host answered, and does not delegate.
    Answered,
    /// The host did not answer; what it said before may still hold.
    Unreachable(PeerError),
}

impl WellKnown {
    /// Nothing known yet.
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, known: Mutex::new(LruCache::new(MAX_HOSTS)), turns: Mutex::default() }
    }

    /// The server name to which this host delegates, from memory or fetched; `None` when it does not.
    pub(crate) async fn fetch_delegation(&self, exchanger: &Exchanger, host: &str) -> Option<OwnedServerName> {
        if let Some(known) = self.find(host) {
            return known.delegated;
        }
        let turn = self.turn(host);
        let held = turn.lock().await;
        let delegated = match self.find(host) {
            Some(known) => known.delegated,
            None => {
                let fetched = tokio::time::timeout(FETCH_TIMEOUT, fetch(exchanger, host))
                    .await
                    .unwrap_or(Err(Miss::Unreachable(PeerError::Timeout)));
                self.remember(host, fetched)
            }
        };
        drop(held);
        // INVARIANT: clones are made only under this lock, so a count of two is the map and us.
        let mut turns = self.turns.lock();
        if Arc::strong_count(&turn) <= 2 {
            turns.remove(host);
        }
        delegated
    }

    fn turn(&self, host: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.turns.lock();
        if turns.len() > MAX_TURNS {
            // What callers left behind who went away while they waited.
            turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        }
        Arc::clone(turns.entry(host.to_owned()).or_default())
    }

    /// Forgets what a host said, since it led nowhere.
    pub(crate) fn forget(&self, host: &str) {
        let now_ms = self.clock.now_ms();
        if let Some(known) = self.known.lock().peek_mut(host) {
            // Asked again, but not in a loop.
            known.expires_ms = known.expires_ms.min(now_ms.saturating_add(MINUTE_MS));
        }
    }

    fn find(&self, host: &str) -> Option<Known> {
        let now_ms = self.clock.now_ms();
        self.known.lock().get(host).filter(|known| known.expires_ms > now_ms).cloned()
    }

    fn remember(&self, host: &str, fetched: Result<(OwnedServerName, u64), Miss>) -> Option<OwnedServerName> {
        let now_ms = self.clock.now_ms();
        let mut all = self.known.lock();
        let before = all.get(host).cloned();
        let failures = before.as_ref().map_or(0, |known| known.failures.saturating_add(1));
        let retry_ms = MINUTE_MS.saturating_mul(1 << failures.min(10)).min(HOUR_MS);
        let known = match fetched {
            Ok((server, lifetime_ms)) => Known {
                delegated: Some(server),
                fetched_ms: now_ms,
                expires_ms: now_ms.saturating_add(lifetime_ms),
                failures: 0,
            },
            Err(Miss::Answered) => {
                Known { delegated: None, fetched_ms: now_ms, expires_ms: now_ms.saturating_add(retry_ms), failures }
            }
            Err(Miss::Unreachable(error)) => {
                tracing::debug!(peer.name = host, %error, "no answer to /.well-known/matrix/server");
                let still_holds = |known: &Known| now_ms.saturating_sub(known.fetched_ms) < LONGEST_MS;
                let before = before.filter(still_holds);
                Known {
                    fetched_ms: before.as_ref().map_or(now_ms, |known| known.fetched_ms),
                    delegated: before.and_then(|known| known.delegated),
                    expires_ms: now_ms.saturating_add(retry_ms),
                    failures,
                }
            }
        };
        let delegated = known.delegated.clone();
        all.put(host.to_owned(), known);
        delegated
    }
}

/// What a host says now, nothing remembered; `None` when it does not delegate.
///
/// # Errors
/// [`PeerError`] when it does not answer.
pub(crate) async fn look(exchanger: &Exchanger, host: &str) -> Result<Option<OwnedServerName>, PeerError> {
    match tokio::time::timeout(FETCH_TIMEOUT, fetch(exchanger, host)).await {
        Ok(Ok((server, _))) => Ok(Some(server)),
        Ok(Err(Miss::Answered)) => Ok(None),
        Ok(Err(Miss::Unreachable(error))) => Err(error),
        Err(_elapsed) => Err(PeerError::Timeout),
    }
}

/// The delegation of a host and for how long it may be remembered, ms.
async fn fetch(exchanger: &Exchanger, host: &str) -> Result<(OwnedServerName, u64), Miss> {
    let mut url =
        Url::parse(&format!("https://{host}/.well-known/matrix/server")).map_err(|_invalid| Miss::Answered)?;
    for _ in 0..=MAX_REDIRECTS {
        let (key, route, target) = target_of(&url, Trust::Homeserver).map_err(|_refused| Miss::Answered)?;
        let outgoing = Outgoing {
            method: Method::GET,
            target,
            authorization: None,
            content_type: crate::exchange::JSON,
            body: None,
            timeout: FETCH_TIMEOUT,
            max_bytes: MAX_BYTES,
        };
        let answer = match exchanger.exchange(&key, &route, &outgoing).await {
            Ok(answer) => answer,
            Err(PeerError::TooLarge) => return Err(Miss::Answered),
            Err(error) => return Err(Miss::Unreachable(error)),
        };
        match answer.status {
            200 => {
                let document: Document = serde_json::from_slice(&answer.body).map_err(|_malformed| Miss::Answered)?;
                return Ok((document.server, lifetime_ms(&answer.headers)));
            }
            301 | 302 | 303 | 307 | 308 => {
                let location = answer.headers.get(LOCATION).and_then(|location| location.to_str().ok());
                url = location.and_then(|location| url.join(location).ok()).ok_or(Miss::Answered)?;
            }
            500.. => {
                return Err(Miss::Unreachable(PeerError::Status {
                    status: answer.status,
                    body: serde_json::Value::Null,
                }));
            }
            _ => return Err(Miss::Answered),
        }
    }
    Err(Miss::Answered)
}

/// How long an answer with these headers may be remembered, ms.
fn lifetime_ms(headers: &HeaderMap) -> u64 {
    let mut lifetime_ms = DEFAULT_MS;
    for value in headers.get_all(CACHE_CONTROL) {
        let Ok(value) = value.to_str() else { continue };
        for directive in value.split(',').map(|directive| directive.trim().to_ascii_lowercase()) {
            if directive == "no-store" || directive == "no-cache" {
                return SHORTEST_MS;
            }
            if let Some(seconds) = directive.strip_prefix("max-age=") {
                lifetime_ms = seconds.trim_matches('"').parse::<u64>().unwrap_or(0).saturating_mul(1000);
            }
        }
    }
    lifetime_ms.clamp(SHORTEST_MS, LONGEST_MS)
}

/// Whether a name could have a well-known document at all.
pub(crate) fn may_delegate(server: &ServerName) -> bool {
    !server.is_ip_literal() && server.port().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_follow_cache_control_within_bounds() {
        let lifetime = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(CACHE_CONTROL, value.parse().unwrap());
            lifetime_ms(&headers)
        };
        assert_eq!(lifetime_ms(&HeaderMap::new()), DEFAULT_MS);
        assert_eq!(lifetime("public, Max-Age=7200"), 2 * HOUR_MS);
        assert_eq!(lifetime("max-age=0"), SHORTEST_MS);
        assert_eq!(lifetime("max-age=99999999999999999999"), SHORTEST_MS);
        assert_eq!(lifetime("max-age=9999999"), LONGEST_MS);
        assert_eq!(lifetime("no-store, max-age=7200"), SHORTEST_MS);
    }
}

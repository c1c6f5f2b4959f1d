//! Token buckets: one per user, one per address for requests without a good token.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use http::request::Parts;
use matron_core::{Core, Error, Requester, settings::RateLimit};
use parking_lot::Mutex;

use super::ClientAddress;
use crate::AppState;

/// How many buckets are remembered; full buckets are forgotten first, and forgetting one only ever favours its owner.
const MAX_BUCKETS: usize = 65_536;

#[derive(Clone, Copy, Debug)]
struct Bucket {
    tokens: f64,
    at_ms: u64,
}

/// The buckets. Bounded; nothing of it is durable.
#[derive(Debug)]
pub struct RateLimiter {
    limit: Option<RateLimit>,
    buckets: Mutex<HashMap<String, Bucket>>,
}

impl RateLimiter {
    /// Limits as the operator chose; `None` limits nothing.
    #[must_use]
    pub fn new(limit: Option<RateLimit>) -> Self {
        Self { limit, buckets: Mutex::default() }
    }

    /// Takes `cost` tokens from the bucket of `key`.
    ///
    /// # Errors
    /// `M_LIMIT_EXCEEDED` with the time after which there are enough.
    pub fn take(&self, key: &str, cost: f64, now_ms: u64) -> Result<(), Error> {
        self.draw(key, cost, cost, now_ms)
    }

    /// Looks whether the bucket of `key` holds so many tokens, and takes none.
    ///
    /// # Errors
    /// As [`RateLimiter::take`].
    pub fn look(&self, key: &str, cost: f64, now_ms: u64) -> Result<(), Error> {
        self.draw(key, cost, 0.0, now_ms)
    }

    /// Takes `taken` tokens from the bucket of `key` if it holds `wanted`.
    fn draw(&self, key: &str, wanted: f64, taken: f64, now_ms: u64) -> Result<(), Error> {
        let Some(limit) = self.limit else { return Ok(()) };
        let full = f64::from(limit.burst.max(1));
        let per_ms = limit.per_second.max(0.001) / 1000.0;
        let refill = |bucket: &Bucket| {
            let elapsed = u32::try_from(now_ms.saturating_sub(bucket.at_ms)).unwrap_or(u32::MAX);
            f64::from(elapsed).mul_add(per_ms, bucket.tokens).min(full)
        };
        let mut buckets = self.buckets.lock();
        if buckets.len() >= MAX_BUCKETS && !buckets.contains_key(key) {
            buckets.retain(|_, bucket| refill(bucket) < full);
            if buckets.len() >= MAX_BUCKETS {
                buckets.clear();
            }
        }
        let tokens = buckets.get(key).map_or(full, refill);
        let short = wanted - tokens;
        if short > 0.0 {
            buckets.insert(key.to_owned(), Bucket { tokens, at_ms: now_ms });
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "positive, and clamped to an hour"
            )]
            let retry_after_ms = (short / per_ms).ceil().clamp(1.0, 3_600_000.0) as u64;
            return Err(Error::LimitExceeded { retry_after_ms });
        }
        buckets.insert(key.to_owned(), Bucket { tokens: tokens - taken, at_ms: now_ms });
        Ok(())
    }
}

/// The client's address, if the listener told it.
#[must_use]
pub fn address_of(parts: &Parts) -> Option<IpAddr> {
    parts.extensions.get::<ClientAddress>().map(|address| address.0)
}

/// Counts a request without a good token against its address.
///
/// # Errors
/// `M_LIMIT_EXCEEDED`.
pub fn check_address(parts: &Parts, state: &AppState) -> Result<(), Error> {
    check_address_for(parts, state, 1.0)
}

/// As [`check_address`], for a request that is worth so many.
///
/// # Errors
/// `M_LIMIT_EXCEEDED`.
pub fn check_address_for(parts: &Parts, state: &AppState, cost: f64) -> Result<(), Error> {
    let key = address_of(parts).map_or_else(|| "address unknown".to_owned(), |address| format!("address {address}"));
    state.limiter.take(&key, cost, state.core.now_ms())
}

/// The bucket of what came from this address as another server's and was not signed.
fn failures(parts: &Parts) -> String {
    address_of(parts).map_or_else(|| "unsigned unknown".to_owned(), |address| format!("unsigned {address}"))
}

/// Looks whether requests of unknown servers are still listened to from this address.
///
/// # Errors
/// `M_LIMIT_EXCEEDED`.
pub fn check_failures(parts: &Parts, state: &AppState) -> Result<(), Error> {
    state.limiter.look(&failures(parts), 1.0, state.core.now_ms())
}

/// Counts a request that no server signed against its address.
///
/// # Errors
/// `M_LIMIT_EXCEEDED`.
pub fn count_failure(parts: &Parts, state: &AppState) -> Result<(), Error> {
    state.limiter.take(&failures(parts), 1.0, state.core.now_ms())
}

/// Counts a request against its user; application services that are not limited are not counted.
///
/// # Errors
/// `M_LIMIT_EXCEEDED`.
pub fn check_user(requester: &Requester, state: &AppState) -> Result<(), Error> {
    if requester.appservice.as_deref().is_some_and(|id| is_unlimited(&state.core, id)) {
        return Ok(());
    }
    state.limiter.take(requester.user_id.as_str(), 1.0, state.core.now_ms())
}

fn is_unlimited(core: &Arc<Core>, appservice: &str) -> bool {
    core.appservice(appservice).is_some_and(|known| known.registration.rate_limited == Some(false))
}

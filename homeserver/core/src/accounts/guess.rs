//! Wrong passwords: a few are slips, more are guessing, from wherever they come.

use ruma::{OwnedUserId, UserId};

use super::WARM;
use crate::{Core, Error};

/// How many wrong passwords may come at once.
const BURST: u64 = 10;

/// After how long another may be tried, ms.
const REFILL_MS: u64 = 6_000;

/// By user: until when the wrong passwords so far fill the budget, ms since the epoch.
#[derive(Debug)]
pub(super) struct Guesses(lru::LruCache<OwnedUserId, u64>);

impl Default for Guesses {
    fn default() -> Self {
        Self(lru::LruCache::new(WARM))
    }
}

impl Core {
    /// Passes while a password of this user may be tried. Without rate limits, always.
    ///
    /// # Errors
    /// `M_LIMIT_EXCEEDED` with the time after which one may be tried again.
    pub(super) fn check_may_guess(&self, user: &UserId) -> Result<(), Error> {
        if self.settings.rate_limit.is_none() {
            return Ok(());
        }
        let now_ms = self.now_ms();
        let spent_until = self.accounts.guesses.lock().0.get(user).copied().unwrap_or(0);
        let allowed_until = now_ms.saturating_add((BURST - 1).saturating_mul(REFILL_MS));
        if spent_until > allowed_until {
            return Err(Error::LimitExceeded { retry_after_ms: spent_until.saturating_sub(allowed_until) });
        }
        Ok(())
    }

    /// Counts a wrong password.
    pub(super) fn note_wrong_guess(&self, user: &UserId) {
        let now_ms = self.now_ms();
        let mut guesses = self.accounts.guesses.lock();
        let spent_until = guesses.0.get_or_insert_mut(user.to_owned(), || now_ms);
        *spent_until = (*spent_until).max(now_ms).saturating_add(REFILL_MS);
    }
}

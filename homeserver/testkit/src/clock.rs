//! The time, as the test says.

use std::sync::atomic::{AtomicU64, Ordering};

use matron_core::ports::Clock;

/// When every network begins, ms since the epoch.
pub const START_MS: u64 = 1_800_000_000_000;

/// A clock that stands until it is moved.
#[derive(Debug)]
pub struct FakeClock(AtomicU64);

impl Default for FakeClock {
    fn default() -> Self {
        Self(AtomicU64::new(START_MS))
    }
}

impl FakeClock {
    /// It is so much later.
    pub fn advance_ms(&self, ms: u64) {
        self.0.fetch_add(ms, Ordering::SeqCst);
    }
}

impl Clock for FakeClock {
    fn now_ms(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

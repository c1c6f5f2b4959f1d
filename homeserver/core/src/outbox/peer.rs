//! What is known of a destination: when it last answered, and how long it is left alone when it fails.

use matron_storage::{Batch, Key, Table};
use ruma::ServerName;
use serde::{Deserialize, Serialize};

use crate::{Core, Error, house::to_json};

/// The first wait after a failure, ms; doubled each time.
const FIRST_WAIT_MS: u64 = 1_000;
/// The longest wait, ms. Short beside the hours of others: a hospital's message waits no longer than its server is away.
const LONGEST_WAIT_MS: u64 = 15 * 60 * 1000;
/// The longest wait for a destination that never took anything, ms: its name may be made up.
const LONGEST_WAIT_FOR_SILENT_MS: u64 = 60 * 60 * 1000;
/// How old the written time of the last success may be while all is well, ms.
const NOTE_AFTER_MS: u64 = 5 * 60 * 1000;
/// The longest reason that is kept, characters.
const MAX_REASON: usize = 300;

/// A row of `outbox_state`, kept over restarts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Backoff {
    /// Failures in a row.
    pub failures: u32,
    /// Not before, ms; 0 while all is well.
    pub until_ms: u64,
    /// When a transaction was last taken, ms, to a few minutes; 0 for never.
    #[serde(default)]
    pub last_success_ms: u64,
    /// When the failures began, ms.
    #[serde(default)]
    pub failing_since_ms: u64,
    /// Why it failed the last time.
    #[serde(default)]
    pub reason: String,
}

impl Backoff {
    /// One failure later.
    pub(super) fn after_failure(self, now_ms: u64, reason: &str) -> Self {
        let longest_ms = if self.last_success_ms > 0 { LONGEST_WAIT_MS } else { LONGEST_WAIT_FOR_SILENT_MS };
        let wait_ms = FIRST_WAIT_MS.saturating_mul(1 << self.failures.min(20)).min(longest_ms);
        // A fifth either way, so that peers that fell together do not come back together.
        let jitter_ms = wait_ms * u64::from(rand::random::<u8>()) / 640;
        Self {
            failures: self.failures.saturating_add(1),
            until_ms: now_ms.saturating_add(wait_ms.saturating_sub(wait_ms / 5)).saturating_add(jitter_ms),
            last_success_ms: self.last_success_ms,
            failing_since_ms: if self.failures == 0 { now_ms } else { self.failing_since_ms },
            reason: reason.chars().take(MAX_REASON).collect(),
        }
    }
}

impl Core {
    pub(super) fn load_backoff(&self, server: &ServerName) -> Result<Backoff, Error> {
        Ok(self.load(Table::OutboxState, &Key::new().text(server))?.unwrap_or_default())
    }

    pub(super) async fn keep_backoff(&self, server: &ServerName, backoff: &Backoff) -> Result<(), Error> {
        let mut batch = Batch::new();
        batch.put(Table::OutboxState, Key::new().text(server), to_json(backoff)?);
        self.outbox.noted.lock().remove(server);
        self.commit(batch).await.map(drop)
    }

    /// The batch notes that the peer took a transaction, unless that was noted lately.
    pub(super) fn write_success(&self, batch: &mut Batch, server: &ServerName) -> Result<(), Error> {
        let now_ms = self.now_ms();
        {
            let mut noted = self.outbox.noted.lock();
            if noted.get(server).is_some_and(|at_ms| now_ms.saturating_sub(*at_ms) < NOTE_AFTER_MS) {
                return Ok(());
            }
            noted.insert(server.to_owned(), now_ms);
            while noted.len() > 4096 {
                noted.pop_first();
            }
        }
        let well = Backoff { last_success_ms: now_ms, ..Backoff::default() };
        batch.put(Table::OutboxState, Key::new().text(server), to_json(&well)?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_waits_longer_up_to_a_bound() {
        for (last_success_ms, longest_ms) in [(1, LONGEST_WAIT_MS), (0, LONGEST_WAIT_FOR_SILENT_MS)] {
            let mut backoff = Backoff { last_success_ms, ..Backoff::default() };
            let mut before = 0;
            for round in 0..40 {
                backoff = backoff.after_failure(0, "why");
                assert!(backoff.until_ms <= longest_ms + longest_ms / 4);
                if round < 5 {
                    assert!(backoff.until_ms > before);
                }
                before = backoff.until_ms;
            }
            assert!(before >= longest_ms * 4 / 5);
        }
    }
}

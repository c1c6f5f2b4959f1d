//! The worker that lets content die on time.

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;

use crate::{Core, Error};

/// The shortest pause between two rounds, ms.
const MIN_PAUSE_MS: u64 = 50;

/// What one round did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Round {
    /// Events that reached their end.
    pub expired: u64,
    /// Events that Matron redacted itself.
    pub redacted: u64,
    /// Events whose content is gone.
    pub purged: u64,
    /// Files that are gone with them.
    pub media: u64,
    /// When the next round is needed, ms since the epoch.
    pub next_ms: Option<u64>,
}

impl Core {
    /// Lets content die on time until `stop` turns true.
    pub async fn run_retention(self: &Arc<Self>, mut stop: watch::Receiver<bool>) {
        if let Err(error) = self.follow_floor().await {
            tracing::error!(%error, "rooms could not be marked for the deployment's shorter lifetime");
        }
        loop {
            let round = match self.retention_round().await {
                Ok(round) => round,
                Err(error) => {
                    tracing::error!(%error, "expired content could not be removed; it stays hidden");
                    Round::default()
                }
            };
            let longest_ms = self.settings.retention.interval_ms.max(MIN_PAUSE_MS);
            let until_next_ms = round.next_ms.map_or(longest_ms, |next_ms| next_ms.saturating_sub(self.now_ms()));
            let pause = Duration::from_millis(until_next_ms.clamp(MIN_PAUSE_MS, longest_ms));
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
                () = self.retention.wake.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Everything that is due at this moment is done: expired content is on its way out, what was redacted or whose
    /// grace is over is purged, keys that open nothing any more are destroyed.
    ///
    /// # Errors
    /// [`Error::Store`]; what was done stays done, and the next round goes on.
    pub async fn retention_round(self: &Arc<Self>) -> Result<Round, Error> {
        let now_ms = self.now_ms();
        let unjudged = self.shorten_lives().await?;
        let taken = self.take_expired(now_ms).await?;
        let mut purged = self.purge_all(taken.doomed, now_ms).await?;
        let waiting = self.look_at_waiting(now_ms)?;
        let redacted = self.redact_expired(&waiting.to_redact).await;
        let mut doomed = waiting.doomed;
        // What was redacted just now need not wait for the next round.
        for (one, _) in waiting.to_redact {
            if self.load_event(&one.event_id)?.is_some_and(|event| event.record.redacted_by.is_some()) {
                doomed.push(one);
            }
        }
        let rest = self.purge_all(doomed, now_ms).await?;
        purged.events = purged.events.saturating_add(rest.events);
        purged.media = purged.media.saturating_add(rest.media);
        let more = unjudged || taken.more || waiting.more;
        let idle = if more { 0 } else { self.destroy_idle_keys(now_ms).await? };
        if purged.events > 0 || idle > 0 {
            self.maintain_store().await?;
        }
        let mut next_ms =
            [self.next_expiry_ms()?, waiting.next_ms, self.next_key_end_ms(now_ms)].into_iter().flatten().min();
        if more {
            next_ms = Some(now_ms);
        }
        Ok(Round { expired: taken.count, redacted, purged: purged.events, media: purged.media, next_ms })
    }

    async fn maintain_store(self: &Arc<Self>) -> Result<(), Error> {
        let store = Arc::clone(&self.store);
        tokio::task::spawn_blocking(move || store.maintain())
            .await
            .map_err(|_| Error::internal("the upkeep of the store was interrupted"))??;
        Ok(())
    }

    /// When the next data key ends, if that is before the next regular round, ms since the epoch.
    fn next_key_end_ms(&self, now_ms: u64) -> Option<u64> {
        let soon_ms = now_ms.saturating_add(self.settings.retention.interval_ms);
        let ending = self.keyring.expired_buckets(soon_ms);
        ending.into_iter().map(|(_, bucket)| bucket).filter(|bucket| *bucket > now_ms).min()
    }
}

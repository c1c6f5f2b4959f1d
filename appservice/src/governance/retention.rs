//! Redacts what the homeserver says has expired, with real redactions that unmodified clients obey.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::client::{ClientError, DueEvent, Session};
use crate::clock::Clock;

/// An event whose redaction was refused is tried again after this time, in milliseconds.
const AGAIN_MS: u64 = 10 * 60 * 1000;
/// Most refused redactions that are remembered.
const MAX_REFUSED: usize = 10_000;
/// Shortest pause between two questions.
const MIN_PAUSE: Duration = Duration::from_millis(100);
/// Longest pause, where the homeserver does not answer or knows no retention.
const MAX_PAUSE: Duration = Duration::from_secs(300);

/// What one round found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Round {
    pub(crate) redacted: usize,
    pub(crate) refused: usize,
    pub(crate) next_due_ms: Option<u64>,
}

/// The worker that redacts.
#[derive(Debug)]
pub struct Retention {
    session: Session,
    clock: Arc<dyn Clock>,
    poll: Duration,
    batch: u32,
    /// When a refused redaction is tried again, by event.
    refused: BTreeMap<String, u64>,
}

impl Retention {
    /// A worker that redacts as `session`, asking at least every `poll`.
    #[must_use]
    pub fn new(session: Session, clock: Arc<dyn Clock>, poll: Duration, batch: u32) -> Self {
        Self { session, clock, poll, batch, refused: BTreeMap::new() }
    }

    /// Redacts what falls due until dropped.
    pub async fn run(mut self) {
        let mut failures = 0u32;
        loop {
            let pause = match self.round().await {
                Ok(round) => {
                    if failures > 0 {
                        tracing::info!("the homeserver answers again what has expired");
                    }
                    failures = 0;
                    self.pause_after(round)
                }
                Err(error) => {
                    if failures == 0 {
                        tracing::warn!(%error, "the homeserver does not say what has expired");
                    }
                    failures = failures.saturating_add(1);
                    self.poll.saturating_mul(1 << failures.min(6)).min(MAX_PAUSE)
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    fn pause_after(&self, round: Round) -> Duration {
        if round.redacted > 0 {
            // There may be more than one batch.
            return MIN_PAUSE;
        }
        let until_due = round.next_due_ms.map(|due| Duration::from_millis(due.saturating_sub(self.clock.now_ms())));
        until_due.map_or(self.poll, |until| until.min(self.poll)).max(MIN_PAUSE)
    }

    /// Asks once and redacts what is due.
    pub(crate) async fn round(&mut self) -> Result<Round, ClientError> {
        let now_ms = self.clock.now_ms();
        self.refused.retain(|_, again| now_ms < *again);
        let due = self.session.fetch_retention_due(self.batch).await?;
        let mut round = Round { next_due_ms: due.next_due_ms, ..Round::default() };
        for event in due.events.iter().take(usize::try_from(self.batch).unwrap_or(usize::MAX)) {
            if self.refused.contains_key(&event.event_id) {
                continue;
            }
            match self.redact(event).await {
                Ok(()) => round.redacted += 1,
                Err(error) if error.is_transient() => return Err(error),
                Err(error) => {
                    tracing::warn!(
                        room.id = %event.room_id, event.id = %event.event_id, %error,
                        "an expired event could not be redacted"
                    );
                    round.refused += 1;
                    if self.refused.len() < MAX_REFUSED {
                        self.refused.insert(event.event_id.clone(), now_ms.saturating_add(AGAIN_MS));
                    }
                }
            }
        }
        if round.redacted > 0 {
            tracing::info!(events = round.redacted, "expired events were redacted");
        }
        Ok(round)
    }

    /// The event id is the transaction id: however often it is asked, one redaction results. Without a reason, which would
    /// have to die too.
    async fn redact(&self, event: &DueEvent) -> Result<(), ClientError> {
        self.session.redact(&event.room_id, &event.event_id, &event.event_id, "").await.map(drop)
    }
}

//! From the spool to the room.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use super::lab::LabFeed;
use super::spool::{SpoolError, Waiting};
use crate::device::{DeviceError, Outgoing, Secrecy};
use crate::hl7::{self, LabReport, Message};

/// Why a report stays in the spool.
#[derive(Debug, Error)]
enum DeliveryError {
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// It was read and rendered before it was accepted: this version reads less than the one that took it.
    #[error("the report can no longer be read")]
    Unreadable,
}

/// Longest pause between tries.
const MAX_PAUSE: Duration = Duration::from_secs(60);

impl LabFeed {
    /// Delivers what waits, in order within each room, until the device stops.
    pub async fn deliver(self: Arc<Self>) {
        let mut failures = 0u32;
        loop {
            if self.device.wait_ready().await.is_err() {
                return;
            }
            match self.deliver_waiting().await {
                Ok(0) => {
                    failures = 0;
                    self.arrived.notified().await;
                }
                Ok(_failed) => {
                    failures = failures.saturating_add(1);
                    let pause = pause(failures);
                    // Something new may be for another room: it need not wait.
                    let _either = tokio::time::timeout(pause, self.arrived.notified()).await;
                }
                Err(error) => {
                    failures = failures.saturating_add(1);
                    tracing::error!(feed = %self.config.name, %error, "the spool cannot be read");
                    tokio::time::sleep(pause(failures)).await;
                }
            }
        }
    }

    /// Tries everything that waits once; gives how many rooms are left with something undelivered.
    async fn deliver_waiting(&self) -> Result<usize, SpoolError> {
        let mut blocked = BTreeSet::new();
        for seq in self.spool.waiting() {
            let Some(waiting) = self.in_spool(move |spool| spool.load(seq)).await? else {
                continue;
            };
            // INVARIANT: a correction never overtakes the result that it corrects.
            if blocked.contains(&waiting.room_id) {
                continue;
            }
            match self.say(&waiting).await {
                Ok(()) => self.in_spool(move |spool| spool.finish(seq)).await?,
                Err(error) => {
                    tracing::warn!(
                        feed = %self.config.name, room.id = %waiting.room_id, seq, %error,
                        "a report was not delivered and waits"
                    );
                    blocked.insert(waiting.room_id);
                }
            }
        }
        Ok(blocked.len())
    }

    async fn in_spool<T: Send + 'static>(
        &self,
        step: impl FnOnce(&super::spool::Spool) -> Result<T, SpoolError> + Send + 'static,
    ) -> Result<T, SpoolError> {
        let spool = Arc::clone(&self.spool);
        match tokio::task::spawn_blocking(move || step(&spool)).await {
            Ok(result) => result,
            Err(_stopping) => Err(SpoolError::Full),
        }
    }

    async fn say(&self, waiting: &Waiting) -> Result<(), DeliveryError> {
        let parts = Message::parse(&waiting.message)
            .ok()
            .and_then(|message| LabReport::read(&message).ok())
            .and_then(|report| hl7::render(&report).ok())
            .ok_or(DeliveryError::Unreadable)?;
        for (part, content) in parts.into_iter().enumerate() {
            self.device
                .send(Outgoing {
                    room_id: waiting.room_id.clone(),
                    event_type: "m.room.message".to_owned(),
                    content,
                    txn_id: format!("{}.{part}", waiting.txn_id),
                    secrecy: Secrecy::Required,
                })
                .await?;
        }
        Ok(())
    }
}

fn pause(failures: u32) -> Duration {
    Duration::from_millis(500).saturating_mul(1 << failures.min(8)).min(MAX_PAUSE)
}

//! A laboratory feed: reports come in over MLLP, are kept on disk, and are said in a room by `@lab-<name>`.

use std::sync::Arc;

use thiserror::Error;
use tokio::sync::Notify;

use super::routes::Routes;
use super::spool::{Spool, SpoolError};
use crate::clock::Clock;
use crate::config::LabFeedConfig;
use crate::device::Device;
use crate::hl7::{self, Ack, LabReport, Message, Refusal};

/// Why a feed cannot start.
#[derive(Debug, Error)]
pub enum LabFeedError {
    /// Its listener cannot open.
    #[error("the feed cannot listen")]
    Listen(#[source] std::io::Error),
    /// Its spool cannot be read.
    #[error(transparent)]
    Spool(#[from] SpoolError),
}

/// One feed.
#[derive(Debug)]
pub struct LabFeed {
    pub(super) config: LabFeedConfig,
    pub(super) spool: Arc<Spool>,
    pub(super) routes: Arc<Routes>,
    pub(super) device: Device,
    pub(super) clock: Arc<dyn Clock>,
    /// Something new is in the spool.
    pub(super) arrived: Notify,
}

impl LabFeed {
    /// A feed; [`LabFeed::serve`] and [`LabFeed::deliver`] are its two tasks.
    #[must_use]
    pub fn new(
        config: LabFeedConfig,
        spool: Spool,
        routes: Arc<Routes>,
        device: Device,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { config, spool: Arc::new(spool), routes, device, clock, arrived: Notify::new() }
    }

    /// Takes one MLLP block: what it acknowledges with `AA` is on disk.
    pub async fn take(&self, block: Vec<u8>) -> Vec<u8> {
        let now_ms = self.clock.now_ms();
        let message = match Message::parse(&block) {
            Ok(message) => message,
            Err(error) => {
                let refusal = Refusal::Malformed(error);
                tracing::info!(feed = %self.config.name, ?error, "a message was rejected");
                return Ack::refused(&refusal).write(header_of(&block).as_ref(), now_ms);
            }
        };
        let ack = match self.accept(&message, block).await {
            Ok(ack) => ack,
            Err(refusal) => {
                tracing::info!(feed = %self.config.name, ?refusal, "a message was refused");
                Ack::refused(&refusal)
            }
        };
        ack.write(Some(&message), now_ms)
    }

    async fn accept(&self, message: &Message, block: Vec<u8>) -> Result<Ack, Refusal> {
        let report = LabReport::read(message)?;
        // What cannot be shown is refused now, while its sender listens.
        let _fits = hl7::render(&report)?;
        let room_id = self.routes.room_for(&self.config, &report).ok_or(Refusal::NoRoom)?;
        let sender = [report.application.as_str(), report.facility.as_str(), report.control_id.as_str()].join("\u{1f}");
        let spool = Arc::clone(&self.spool);
        let accepted = tokio::task::spawn_blocking(move || spool.accept(&sender, &block, &room_id)).await;
        Ok(match accepted {
            Ok(Ok(new)) => {
                if new {
                    self.arrived.notify_one();
                }
                Ack::ACCEPTED
            }
            Ok(Err(SpoolError::Reused)) => Ack::REUSED_CONTROL_ID,
            Ok(Err(error)) => {
                tracing::warn!(feed = %self.config.name, %error, "a message could not be kept");
                Ack::TRY_AGAIN
            }
            Err(_stopping) => Ack::TRY_AGAIN,
        })
    }
}

/// The header alone, so that even a malformed message is acknowledged with its control id.
fn header_of(block: &[u8]) -> Option<Message> {
    let end = block.iter().position(|b| matches!(b, b'\r' | b'\n')).unwrap_or(block.len());
    Message::parse(block.get(..end)?).ok()
}

//! The feed's MLLP listener.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::lab::LabFeed;
use crate::hl7::{Ack, AckCode, mllp};

/// How long a block may take to arrive once it has begun.
const BLOCK: Duration = Duration::from_secs(60);
/// How long a connection may be silent between blocks.
const SILENCE: Duration = Duration::from_secs(3600);
/// How long a peer may take to read an acknowledgement.
const WRITE: Duration = Duration::from_secs(30);
/// What an overlong block is answered with.
const TOO_LARGE: Ack = Ack { code: AckCode::Reject, reason: Some((102, "The message is larger than the limit.")) };

impl LabFeed {
    /// Takes connections until dropped.
    pub async fn serve(self: Arc<Self>, listener: TcpListener) {
        let slots = Arc::new(Semaphore::new(self.config.max_connections));
        let mut connections = JoinSet::new();
        loop {
            // A full house lets newcomers wait in the kernel's backlog.
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
                return;
            };
            while connections.try_join_next().is_some() {}
            match listener.accept().await {
                Ok((stream, _peer)) => {
                    let feed = Arc::clone(&self);
                    connections.spawn(async move {
                        let ended = feed.converse(stream).await;
                        if let Err(error) = ended {
                            tracing::debug!(feed = %feed.config.name, %error, "a connection broke");
                        }
                        drop(slot);
                    });
                }
                Err(error) => {
                    tracing::warn!(feed = %self.config.name, %error, "a connection was not accepted");
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            }
        }
    }

    async fn converse(&self, mut stream: TcpStream) -> std::io::Result<()> {
        stream.set_nodelay(true)?;
        let mut decoder = mllp::Decoder::new(self.config.max_message_bytes);
        let mut buffer = vec![0u8; 16 * 1024];
        let mut blocks = Vec::new();
        loop {
            let patience = if decoder.is_idle() { SILENCE } else { BLOCK };
            let read = tokio::time::timeout(patience, stream.read(&mut buffer)).await??;
            if read == 0 {
                return Ok(());
            }
            let pushed = decoder.push(buffer.get(..read).unwrap_or_default(), &mut blocks);
            for block in blocks.drain(..) {
                let ack = self.take(block).await;
                answer(&mut stream, &ack).await?;
            }
            if let Err(error) = pushed {
                tracing::info!(feed = %self.config.name, %error, "a connection is closed");
                if let mllp::MllpError::TooLarge(_) = error {
                    answer(&mut stream, &TOO_LARGE.write(None, self.clock.now_ms())).await?;
                }
                return stream.shutdown().await;
            }
        }
    }
}

async fn answer(stream: &mut TcpStream, ack: &[u8]) -> std::io::Result<()> {
    tokio::time::timeout(WRITE, stream.write_all(&mllp::frame(ack))).await?
}

//! A bridged device at work: one task owns its [`Machine`](crate::crypto::Machine), its session and its stored state.
//!
//! Everybody else holds a [`Device`], the way to that task. Requests wait in a bounded queue while the
//! homeserver is away.

mod open;
mod task;

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot, watch};

use crate::client::{Client, ClientError};
use crate::clock::Clock;
use crate::crypto::{CryptoError, Decrypted};
use crate::store::{Store, StoreError};

/// Requests that may wait for a device.
const QUEUE: usize = 64;
/// How long a request waits for its answer, the homeserver's absence included.
const PATIENCE: Duration = Duration::from_secs(120);

/// Why a device could not do what was asked.
#[derive(Debug, Error)]
pub enum DeviceError {
    /// The homeserver refused or could not be reached.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Keys could not be handled.
    #[error(transparent)]
    Crypto(#[from] CryptoError),
    /// State could not be stored.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Stored state is not what this version wrote.
    #[error("stored device state is corrupt")]
    Stored(#[source] serde_json::Error),
    /// The room is not encrypted, and this must not be said in the open.
    #[error("the room is not encrypted")]
    NotEncrypted,
    /// The device's task did not answer in time.
    #[error("the device did not answer in time")]
    Timeout,
    /// The device's task has ended.
    #[error("the device has stopped")]
    Stopped,
}

impl DeviceError {
    /// True where the same request may succeed later without anybody's doing.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Client(error) => error.is_transient(),
            Self::Store(_) | Self::Timeout | Self::Stopped => true,
            Self::Crypto(_) | Self::Stored(_) | Self::NotEncrypted => false,
        }
    }
}

/// May this be said in a room that is not encrypted?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Secrecy {
    /// Never.
    Required,
    /// Encrypted where the room is.
    AsRoom,
}

/// A message to a room.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// The room.
    pub room_id: String,
    /// Its type before encryption.
    pub event_type: String,
    /// Its content before encryption.
    pub content: Value,
    /// The same message has the same transaction id, also after a restart.
    pub txn_id: String,
    /// Whether it may go out in the open.
    pub secrecy: Secrecy,
}

#[derive(Debug)]
enum Command {
    Send { message: Outgoing, reply: oneshot::Sender<Result<String, DeviceError>> },
    Decrypt { room_id: String, event: Value, reply: oneshot::Sender<Decrypted> },
    RoomChanged { room_id: String },
}

/// The way to one device's task; cheap to clone.
#[derive(Debug, Clone)]
pub struct Device {
    user_id: Arc<str>,
    commands: mpsc::Sender<Command>,
    ready: watch::Receiver<bool>,
    new_keys: watch::Receiver<u64>,
}

/// What a device is made of.
#[derive(Debug, Clone)]
pub struct DeviceSetup {
    /// The way to the homeserver.
    pub client: Client,
    /// Where its state lies.
    pub store: Store,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Localpart of its user.
    pub localpart: String,
    /// Display name of its user.
    pub display_name: String,
}

impl Device {
    /// The device and the task that drives it; the caller runs the task.
    #[must_use]
    pub fn new(setup: DeviceSetup) -> (Self, DeviceTask) {
        let (commands, queue) = mpsc::channel(QUEUE);
        let (ready_out, ready) = watch::channel(false);
        let (new_keys_out, new_keys) = watch::channel(0);
        let user_id = setup.client.user_id(&setup.localpart).into();
        let task = DeviceTask { setup, commands: queue, ready: ready_out, new_keys: new_keys_out };
        (Self { user_id, commands, ready, new_keys }, task)
    }

    /// Its user.
    #[must_use]
    pub fn user_id(&self) -> &str {
        &self.user_id
    }

    /// Ends when the device is logged in and its keys are published.
    ///
    /// # Errors
    /// [`DeviceError::Stopped`].
    pub async fn wait_ready(&self) -> Result<(), DeviceError> {
        let mut ready = self.ready.clone();
        ready.wait_for(|ready| *ready).await.map(drop).map_err(|_gone| DeviceError::Stopped)
    }

    /// Changes whenever room keys arrive.
    #[must_use]
    pub fn new_keys(&self) -> watch::Receiver<u64> {
        self.new_keys.clone()
    }

    /// The message is in the room afterwards, encrypted where the room is; gives its event id.
    ///
    /// # Errors
    /// [`DeviceError`].
    pub async fn send(&self, message: Outgoing) -> Result<String, DeviceError> {
        self.ask(|reply| Command::Send { message, reply }).await?
    }

    /// Decrypts an `m.room.encrypted` event of a room.
    ///
    /// # Errors
    /// [`DeviceError::Timeout`] or [`DeviceError::Stopped`].
    pub async fn decrypt(&self, room_id: &str, event: Value) -> Result<Decrypted, DeviceError> {
        self.ask(|reply| Command::Decrypt { room_id: room_id.to_owned(), event, reply }).await
    }

    /// What is remembered of the room's encryption is asked for anew before the next message.
    ///
    /// # Errors
    /// [`DeviceError::Timeout`] or [`DeviceError::Stopped`].
    pub async fn room_changed(&self, room_id: &str) -> Result<(), DeviceError> {
        let command = Command::RoomChanged { room_id: room_id.to_owned() };
        match tokio::time::timeout(PATIENCE, self.commands.send(command)).await {
            Ok(sent) => sent.map_err(|_closed| DeviceError::Stopped),
            Err(_elapsed) => Err(DeviceError::Timeout),
        }
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, DeviceError> {
        let (reply, answer) = oneshot::channel();
        let asked = async {
            self.commands.send(command(reply)).await.map_err(|_closed| DeviceError::Stopped)?;
            answer.await.map_err(|_dropped| DeviceError::Stopped)
        };
        tokio::time::timeout(PATIENCE, asked).await.map_err(|_elapsed| DeviceError::Timeout)?
    }
}

/// Drives one device; see [`DeviceTask::run`].
#[derive(Debug)]
pub struct DeviceTask {
    setup: DeviceSetup,
    commands: mpsc::Receiver<Command>,
    ready: watch::Sender<bool>,
    new_keys: watch::Sender<u64>,
}

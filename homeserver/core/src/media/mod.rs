//! Files, thumbnails, remote media.
//!
//! Files lie outside the database, sealed under the data key of their bucket: destroying the key makes every copy of them
//! unreadable. The names of files say nothing of their content.
//!
//! - [`upload`], [`pending`]: taking files from local users. [`metadata`]: taking place, time and person out of pictures.
//! - [`download`], [`remote`], [`multipart`]: giving files, ours and others'. [`thumbnail`]: small pictures of large ones.
//! - [`preview`]: what a page says of itself.
//! - [`disk`]: sealed files, each content once per bucket. [`expiry`]: their death. [`mxc`]: their names.

mod animation;
mod disk;
pub mod download;
pub mod expiry;
pub mod metadata;
mod multipart;
pub mod mxc;
pub mod pending;
mod prepare;
pub mod preview;
pub mod remote;
pub mod thumbnail;
pub mod upload;

#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::Duration,
};

use matron_storage::{Key, Table};
use parking_lot::Mutex;
use ruma::OwnedUserId;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, Semaphore, watch};

pub use self::{
    disk::MediaReader,
    download::{DownloadOptions, MediaContent, MediaFile},
    multipart::Envelope,
    multipart::{content_disposition, is_inline},
    mxc::Mxc,
    remote::FederationMedia,
    thumbnail::{Method, ThumbnailRequest},
    upload::NewUpload,
};
use crate::{Core, Error};

/// How many pictures are decoded at the same time; each may take [`thumbnail::MAX_DECODED_BYTES`].
const DECODERS: usize = 2;

/// How much of uploads may be in memory at the same time, KiB.
const UPLOAD_BUDGET_KIB: usize = 256 * 1024;

/// How often expired media is looked for at least, ms.
const MAX_INTERVAL_MS: u64 = 30_000;

/// In how many parts the writers of files exclude each other.
const STRIPES: usize = 64;

/// A row of `media_meta`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct MediaMeta {
    /// Who uploaded it; absent for remote media.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uploader: Option<OwnedUserId>,
    /// As the uploader, or its server, said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// As the uploader, or its server, said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_name: Option<String>,
    /// Of the content as it is served.
    pub size_bytes: u64,
    /// Name of the sealed file; absent while the upload is pending.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Whose data key seals the file.
    pub bucket: u64,
    /// When it was uploaded or cached, ms since the epoch.
    pub created_ms: u64,
    /// When it dies, ms since the epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_ms: Option<u64>,
    /// Until when a pending upload must come, ms since the epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unused_expires_ms: Option<u64>,
    /// Hidden by an operator.
    pub quarantined: bool,
}

/// What this concern keeps in memory; truth lives in the store.
#[derive(Debug)]
pub struct State {
    decoders: Arc<Semaphore>,
    uploads: Arc<Semaphore>,
    /// See [`prepare`].
    waiting: prepare::Waiting,
    /// A pending upload came.
    arrived: Notify,
    /// One fetch per remote file at a time.
    fetching: Mutex<HashMap<Mxc, Weak<tokio::sync::Mutex<()>>>>,
    previews: preview::Previews,
    /// Writers and removers of one file exclude each other, so that nobody removes what another just took over.
    stripes: Vec<tokio::sync::Mutex<()>>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            decoders: Arc::new(Semaphore::new(DECODERS)),
            uploads: Arc::new(Semaphore::new(UPLOAD_BUDGET_KIB)),
            waiting: prepare::Waiting::default(),
            arrived: Notify::new(),
            fetching: Mutex::default(),
            previews: preview::Previews::default(),
            stripes: std::iter::repeat_with(tokio::sync::Mutex::default).take(STRIPES).collect(),
        }
    }
}

impl Core {
    /// Removes media that expired, and makes thumbnails of pictures that came, until `stop` turns true.
    pub async fn run_media(self: &Arc<Self>, mut stop: watch::Receiver<bool>) {
        let interval_ms = self.settings.retention.interval_ms.clamp(100, MAX_INTERVAL_MS);
        let mut tick = tokio::time::interval(Duration::from_millis(interval_ms));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = crate::house::stopped(&mut stop) => return,
                () = self.media.waiting.arrived.notified() => self.prepare_waiting().await,
                _ = tick.tick() => {
                    if let Err(error) = self.expire_media().await {
                        tracing::warn!(%error, "expired media could not be removed; it stays hidden");
                    }
                }
            }
        }
    }

    /// What is known of a file.
    pub(crate) fn find_media(&self, mxc: &Mxc) -> Result<Option<MediaMeta>, Error> {
        self.load(Table::MediaMeta, &meta_key(mxc))
    }

    /// The longest lifetime that the deployment's policy allows, ms; `None`: any.
    fn media_lifetime_floor_ms(&self) -> Option<u64> {
        self.settings.policy.layer.as_ref()?.get("max_lifetime_ms")?.as_u64()
    }
}

fn meta_key(mxc: &Mxc) -> Key {
    Key::new().text(&mxc.server).text(&mxc.id)
}

//! Giving a file, ours or another server's.
//!
//! Spec: <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1mediadownloadservernamemediaid>.

use std::time::Duration;

use bytes::Bytes;
use ruma::UserId;

use super::{
    MediaMeta, Mxc,
    disk::{MediaReader, ORIGINAL, Place, blocking},
};
use crate::{Core, Error};

/// How long a reader waits for a pending upload when it does not say, ms.
const DEFAULT_WAIT_MS: u64 = 20_000;

/// The longest that a reader may wait, ms.
const MAX_WAIT_MS: u64 = 60_000;

/// How a reader wants a file.
#[derive(Clone, Copy, Debug)]
pub struct DownloadOptions<'a> {
    /// How long to wait for a pending upload, or another server, ms.
    pub timeout_ms: Option<u64>,
    /// Whether another server may be asked.
    pub allow_remote: bool,
    /// Who asks, if known: a copy of a remote file lives no longer than messages in their rooms.
    pub asker: Option<&'a UserId>,
}

impl Default for DownloadOptions<'_> {
    fn default() -> Self {
        Self { timeout_ms: None, allow_remote: true, asker: None }
    }
}

impl DownloadOptions<'_> {
    pub(super) fn wait(&self) -> Duration {
        Duration::from_millis(self.timeout_ms.unwrap_or(DEFAULT_WAIT_MS).min(MAX_WAIT_MS))
    }
}

/// A file on its way to a reader.
#[derive(Debug)]
pub struct MediaFile {
    /// As the uploader, or its server, said.
    pub content_type: Option<String>,
    /// As the uploader, or its server, said.
    pub file_name: Option<String>,
    /// Of the content.
    pub size_bytes: u64,
    /// When it dies, ms since the epoch.
    pub expires_ms: Option<u64>,
    /// The content.
    pub content: MediaContent,
}

/// A file's content.
#[derive(Debug)]
pub enum MediaContent {
    /// To be read part by part.
    File(MediaReader),
    /// In memory: a thumbnail.
    Memory(Bytes),
}

fn no_media() -> Error {
    Error::not_found("there is no such media")
}

impl Core {
    /// The file, from disk or from the server that has it.
    ///
    /// # Errors
    /// `M_NOT_FOUND` also for what expired or is quarantined, `M_NOT_YET_UPLOADED` (504) for a name without a file,
    /// `M_TOO_LARGE` (502) for a remote file beyond our bound, 502 when the other server fails.
    pub async fn download_media(&self, mxc: &Mxc, options: DownloadOptions<'_>) -> Result<MediaFile, Error> {
        let meta = self.media_ready(mxc, options).await?;
        let place = place_of(&meta)?;
        let size_bytes = meta.size_bytes;
        let disk = self.disk();
        let reader = blocking(move || disk.open(&place, ORIGINAL, size_bytes)).await?;
        let reader = reader.ok_or_else(|| Error::internal("a media file is missing from the disk"))?;
        Ok(MediaFile {
            content_type: meta.content_type,
            file_name: meta.file_name,
            size_bytes,
            expires_ms: meta.expires_ms,
            content: MediaContent::File(reader),
        })
    }

    /// What is known of a file that may be shown and is on disk.
    pub(super) async fn media_ready(&self, mxc: &Mxc, options: DownloadOptions<'_>) -> Result<MediaMeta, Error> {
        if self.is_local(mxc.server()) {
            return self.local_media_ready(mxc, options).await;
        }
        if let Some(meta) = self.find_media(mxc)? {
            return self.check_shown(meta);
        }
        if !options.allow_remote || !self.settings.federation {
            return Err(no_media());
        }
        let meta = self.fetch_remote_media(mxc, options).await?;
        self.check_shown(meta)
    }

    fn check_shown(&self, meta: MediaMeta) -> Result<MediaMeta, Error> {
        let expired = meta.expires_ms.is_some_and(|expires_ms| expires_ms <= self.now_ms());
        if meta.quarantined || expired {
            return Err(no_media());
        }
        Ok(meta)
    }

    async fn local_media_ready(&self, mxc: &Mxc, options: DownloadOptions<'_>) -> Result<MediaMeta, Error> {
        let deadline = tokio::time::Instant::now() + options.wait();
        loop {
            // Registered before the store is read: an upload in between wakes this reader.
            let mut arrived = std::pin::pin!(self.media.arrived.notified());
            arrived.as_mut().enable();
            let meta = self.check_shown(self.find_media(mxc)?.ok_or_else(no_media)?)?;
            if meta.file.is_some() {
                return Ok(meta);
            }
            if meta.unused_expires_ms.is_some_and(|ends_ms| ends_ms <= self.now_ms()) {
                return Err(no_media());
            }
            if tokio::time::timeout_at(deadline, arrived).await.is_err() {
                return Err(Error::NotYetUploaded);
            }
        }
    }
}

pub(super) fn place_of(meta: &MediaMeta) -> Result<Place, Error> {
    let file = meta.file.clone().ok_or_else(no_media)?;
    Ok(Place { bucket: meta.bucket, file })
}

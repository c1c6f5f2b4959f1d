//! Other servers' files, fetched once and cached for a while; and what other servers fetch from us.
//!
//! Spec: <https://spec.matrix.org/v1.19/server-server-api/#content-repository>.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use matron_storage::Batch;
use rand::Rng as _;
use serde_json::Value;

use super::{
    DownloadOptions, MediaFile, MediaMeta, Mxc, ThumbnailRequest, meta_key,
    multipart::{self, Envelope, Part, file_name_of},
    upload::tidy,
};
use crate::{
    Core, Error,
    ports::{FederationRequest, OutboundRequest, PeerError, http_method::Method},
};

/// How long other servers' files are cached, ms.
const CACHE_LIFETIME_MS: u64 = 7 * 24 * 60 * 60 * 1000;

/// What comes around a file in an answer, bytes.
const ENVELOPE_BYTES: usize = 128 * 1024;

/// How much longer than the upload we wait for a file, so that slow links finish.
const TRANSFER_TIME: Duration = Duration::from_secs(60);

/// A file for another server.
#[derive(Debug)]
pub struct FederationMedia {
    /// What surrounds it.
    pub envelope: Envelope,
    /// The file itself.
    pub file: MediaFile,
}

impl Core {
    /// One of our files for another server.
    ///
    /// # Errors
    /// As [`Core::download_media`].
    pub async fn federation_download(&self, id: &str, timeout_ms: Option<u64>) -> Result<FederationMedia, Error> {
        let mxc = Mxc::new(self.server_name.clone(), id)?;
        let options = DownloadOptions { timeout_ms, allow_remote: false, asker: None };
        Ok(enveloped(self.download_media(&mxc, options).await?))
    }

    /// A thumbnail of one of our files for another server.
    ///
    /// # Errors
    /// As [`Core::thumbnail`].
    pub async fn federation_thumbnail(
        &self,
        id: &str,
        request: ThumbnailRequest,
        timeout_ms: Option<u64>,
    ) -> Result<FederationMedia, Error> {
        let mxc = Mxc::new(self.server_name.clone(), id)?;
        let options = DownloadOptions { timeout_ms, allow_remote: false, asker: None };
        Ok(enveloped(self.thumbnail(&mxc, request, options).await?))
    }

    /// The file is fetched from its server and cached; one fetch serves everyone who asks meanwhile.
    pub(super) async fn fetch_remote_media(&self, mxc: &Mxc, options: DownloadOptions<'_>) -> Result<MediaMeta, Error> {
        let lock = self.fetch_lock(mxc);
        let _fetching = lock.lock().await;
        if let Some(meta) = self.find_media(mxc)? {
            return Ok(meta);
        }
        let part = self.request_media(mxc, options.wait()).await?;
        let now_ms = self.now_ms();
        let of_rooms_ms = options.asker.map(|asker| self.encrypted_rooms_lifetime_ms(asker)).transpose()?.flatten();
        let bounds = [self.media_lifetime_floor_ms(), of_rooms_ms];
        let lifetime_ms = bounds.into_iter().flatten().fold(CACHE_LIFETIME_MS, u64::min);
        let meta = MediaMeta {
            content_type: tidy(part.content_type),
            file_name: tidy(part.content_disposition.as_deref().and_then(file_name_of)),
            created_ms: now_ms,
            expires_ms: Some(now_ms.saturating_add(lifetime_ms)),
            ..MediaMeta::default()
        };
        let mut batch = Batch::new();
        batch.expect_absent(matron_storage::Table::MediaMeta, meta_key(mxc));
        match self.store_file(batch, mxc, meta, part.body).await {
            // Another process was faster.
            Err(Error::CannotOverwriteMedia) => {
                self.find_media(mxc)?.ok_or_else(|| Error::not_found("there is no such media"))
            }
            stored => stored,
        }
    }

    fn fetch_lock(&self, mxc: &Mxc) -> Arc<tokio::sync::Mutex<()>> {
        let mut fetching = self.media.fetching.lock();
        fetching.retain(|_, lock| lock.strong_count() > 0);
        if let Some(lock) = fetching.get(mxc).and_then(Weak::upgrade) {
            return lock;
        }
        let lock = Arc::new(tokio::sync::Mutex::new(()));
        fetching.insert(mxc.clone(), Arc::downgrade(&lock));
        lock
    }

    async fn request_media(&self, mxc: &Mxc, wait: Duration) -> Result<Part, Error> {
        let timeout_ms = wait.as_millis();
        let path = format!("/_matrix/federation/v1/media/download/{}?timeout_ms={timeout_ms}", mxc.id);
        match self.request_path(mxc, path, true, wait).await {
            Ok(response) => {
                let content_type = response.content_type.unwrap_or_default();
                let mut part = multipart::second_part(&content_type, &response.body)
                    .ok_or_else(|| Error::Peer("the other server's answer has the wrong form".into()))?;
                drop(response.body);
                match part.location.take() {
                    Some(location) => {
                        // What came beside the address is not held while it is followed.
                        part.body = bytes::Bytes::new();
                        self.follow(location, part, wait).await
                    }
                    None => Ok(part),
                }
            }
            Err(PeerError::Status { status: 404 | 405, body }) if !says_not_found(&body) => {
                self.request_old_path(mxc, wait).await
            }
            Err(error) => Err(self.refusal(error)),
        }
    }

    /// SPEC: v1.19 Server-Server API, "Content Repository": servers before v1.11 know the deprecated path only.
    async fn request_old_path(&self, mxc: &Mxc, wait: Duration) -> Result<Part, Error> {
        let path = format!("/_matrix/media/v3/download/{}/{}?allow_remote=false", mxc.server, mxc.id);
        let response = self.request_path(mxc, path, false, wait).await.map_err(|error| self.refusal(error))?;
        Ok(Part {
            content_type: response.content_type,
            content_disposition: response.content_disposition,
            location: None,
            body: response.body,
        })
    }

    async fn request_path(
        &self,
        mxc: &Mxc,
        path_and_query: String,
        signed: bool,
        wait: Duration,
    ) -> Result<crate::ports::PeerResponse, PeerError> {
        let request = FederationRequest {
            destination: mxc.server.clone(),
            method: Method::Get,
            path_and_query,
            body: None,
            signed,
            timeout: wait + TRANSFER_TIME,
            max_bytes: self.max_file_bytes().saturating_add(ENVELOPE_BYTES),
        };
        self.ask_peer(request).await
    }

    /// The file lies elsewhere; the carrier refuses addresses inside our own network.
    async fn follow(&self, url: String, part: Part, wait: Duration) -> Result<Part, Error> {
        if !url.starts_with("https://") {
            return Err(Error::Peer("the other server sent us to an address that is not https".into()));
        }
        let request = OutboundRequest {
            method: Method::Get,
            url,
            bearer: None,
            body: None,
            timeout: wait + TRANSFER_TIME,
            max_bytes: self.max_file_bytes(),
            trusted: false,
        };
        let response = self.federation.outbound(request).await.map_err(|error| self.refusal(error))?;
        Ok(Part {
            content_type: response.content_type.or(part.content_type),
            content_disposition: response.content_disposition.or(part.content_disposition),
            location: None,
            body: response.body,
        })
    }

    fn max_file_bytes(&self) -> usize {
        usize::try_from(self.settings.max_upload_bytes).unwrap_or(usize::MAX)
    }

    fn refusal(&self, error: PeerError) -> Error {
        match error {
            PeerError::TooLarge => too_large_elsewhere(),
            PeerError::Status { status: 404, .. } => Error::not_found("the other server has no such media"),
            PeerError::Status { status: 413 | 502, body } if errcode_of(&body) == Some("M_TOO_LARGE") => {
                too_large_elsewhere()
            }
            PeerError::Status { status: 504, body } if errcode_of(&body) == Some("M_NOT_YET_UPLOADED") => {
                Error::NotYetUploaded
            }
            // A name that leads nowhere is the asker's mistake, not a server's failure.
            PeerError::Resolve(_) => Error::not_found("the server of this media cannot be found"),
            error => Error::Peer(format!("the media could not be fetched: {error}").into()),
        }
    }
}

fn too_large_elsewhere() -> Error {
    Error::Custom { status: 502, errcode: "M_TOO_LARGE", message: "the file is too large to be served here".into() }
}

fn errcode_of(body: &Value) -> Option<&str> {
    body.get("errcode")?.as_str()
}

fn says_not_found(body: &Value) -> bool {
    errcode_of(body) == Some("M_NOT_FOUND")
}

fn enveloped(file: MediaFile) -> FederationMedia {
    let mut random = [0_u8; 16];
    rand::rng().fill_bytes(&mut random);
    let boundary: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let content_type = file.content_type.as_deref().unwrap_or("application/octet-stream");
    let disposition = multipart::content_disposition(multipart::is_inline(content_type), file.file_name.as_deref());
    FederationMedia { envelope: multipart::envelope(&boundary, content_type, &disposition), file }
}

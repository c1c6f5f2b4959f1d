//! `GET /media/preview_url`: what a page says of itself, fetched for the client. Off unless the operator allows it, since
//! the server learns what people talk about.
//!
//! Spec: <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1mediapreview_url>.

mod html;

use std::{io::Cursor, num::NonZeroUsize, time::Duration};

use bytes::Bytes;
use lru::LruCache;
use matron_storage::{Batch, Table};
use parking_lot::Mutex;
use serde_json::{Map, Value};
use url::Url;

use super::{MediaMeta, Mxc, meta_key};
use crate::{
    Core, Error,
    ports::{OutboundRequest, PeerError, PeerResponse, http_method::Method},
};

/// How long a page may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The largest page, bytes.
const MAX_PAGE_BYTES: usize = 4 * 1024 * 1024;

/// The largest picture, bytes.
const MAX_PICTURE_BYTES: usize = 10 * 1024 * 1024;

/// The longest URL, bytes.
const MAX_URL_BYTES: usize = 2048;

/// How long a preview is remembered, ms.
const REMEMBERED_MS: u64 = 60 * 60 * 1000;

/// How long its picture is kept, ms.
const PICTURE_LIFETIME_MS: u64 = 24 * 60 * 60 * 1000;

/// How many previews are remembered.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(500).unwrap();

/// A preview, and until when it is remembered, ms since the epoch.
type Remembered = (u64, Map<String, Value>);

/// Previews that were made lately, by URL.
#[derive(Debug)]
pub(super) struct Previews(Mutex<LruCache<String, Remembered>>);

impl Default for Previews {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(REMEMBERED)))
    }
}

impl Core {
    /// What the page says of itself (OpenGraph); empty where previews are off or the page says nothing.
    ///
    /// # Errors
    /// `M_INVALID_PARAM` for what is no http URL, `M_NOT_FOUND` where nothing is or may be reached, 502 when the page cannot
    /// be fetched.
    pub async fn preview_url(&self, url: &str) -> Result<Map<String, Value>, Error> {
        let parsed = Url::parse(url).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        let Some(parsed) = parsed.filter(|_| url.len() <= MAX_URL_BYTES) else {
            return Err(Error::invalid("`url` is not an http or https URL"));
        };
        if !self.settings.url_previews {
            return Ok(Map::new());
        }
        let now_ms = self.now_ms();
        if let Some((until_ms, preview)) = self.media.previews.0.lock().get(url)
            && *until_ms > now_ms
        {
            return Ok(preview.clone());
        }
        let preview = self.make_preview(&parsed).await?;
        let until_ms = now_ms.saturating_add(REMEMBERED_MS);
        self.media.previews.0.lock().put(url.to_owned(), (until_ms, preview.clone()));
        Ok(preview)
    }

    async fn make_preview(&self, url: &Url) -> Result<Map<String, Value>, Error> {
        let page = self.fetch_outside(url, MAX_PAGE_BYTES).await?;
        let kind = page.content_type.as_deref().unwrap_or_default().to_ascii_lowercase();
        let mut preview = Map::new();
        if kind.starts_with("image/") {
            self.add_picture(&mut preview, page).await?;
            return Ok(preview);
        }
        if !kind.starts_with("text/html") && !kind.starts_with("application/xhtml") {
            return Ok(preview);
        }
        for (name, value) in html::properties(&String::from_utf8_lossy(&page.body)) {
            preview.insert(name, Value::String(value));
        }
        let picture = preview.remove("og:image").and_then(|picture| url.join(picture.as_str()?).ok());
        if let Some(picture) = picture.filter(|url| matches!(url.scheme(), "http" | "https")) {
            // A page without its picture is still a preview.
            if let Ok(picture) = self.fetch_outside(&picture, MAX_PICTURE_BYTES).await {
                self.add_picture(&mut preview, picture).await?;
            }
        }
        Ok(preview)
    }

    /// The carrier refuses addresses inside our own network, also after redirects.
    async fn fetch_outside(&self, url: &Url, max_bytes: usize) -> Result<PeerResponse, Error> {
        let request = OutboundRequest {
            trusted: false,
            method: Method::Get,
            url: url.to_string(),
            bearer: None,
            body: None,
            timeout: TIMEOUT,
            max_bytes,
        };
        self.federation.outbound(request).await.map_err(|error| match error {
            // The same words for a host that is not there and for one that may not be reached.
            PeerError::Resolve(_) => Error::not_found("there is no such page"),
            PeerError::Status { status, .. } if (400..500).contains(&status) => {
                Error::not_found("there is no such page")
            }
            _ => Error::Peer("the page could not be fetched".into()),
        })
    }

    async fn add_picture(&self, preview: &mut Map<String, Value>, picture: PeerResponse) -> Result<(), Error> {
        let kind = picture.content_type.filter(|kind| kind.to_ascii_lowercase().starts_with("image/"));
        let Some(kind) = kind else { return Ok(()) };
        preview.insert("matrix:image:size".to_owned(), (picture.body.len() as u64).into());
        preview.insert("og:image:type".to_owned(), kind.as_str().into());
        if let Some((width, height)) = size_of(&picture.body) {
            preview.insert("og:image:width".to_owned(), width.into());
            preview.insert("og:image:height".to_owned(), height.into());
        }
        let now_ms = self.now_ms();
        let lifetime_ms =
            self.media_lifetime_floor_ms().map_or(PICTURE_LIFETIME_MS, |floor| floor.min(PICTURE_LIFETIME_MS));
        let meta = MediaMeta {
            content_type: super::upload::tidy(Some(kind)),
            created_ms: now_ms,
            expires_ms: Some(now_ms.saturating_add(lifetime_ms)),
            ..MediaMeta::default()
        };
        let mxc = Mxc::fresh(&self.server_name);
        let mut batch = Batch::new();
        batch.expect_absent(Table::MediaMeta, meta_key(&mxc));
        self.store_file(batch, &mxc, meta, picture.body).await?;
        preview.insert("og:image".to_owned(), mxc.to_string().into());
        Ok(())
    }
}

/// From the head of the file; nothing is decoded.
fn size_of(picture: &Bytes) -> Option<(u32, u32)> {
    image::ImageReader::new(Cursor::new(picture)).with_guessed_format().ok()?.into_dimensions().ok()
}

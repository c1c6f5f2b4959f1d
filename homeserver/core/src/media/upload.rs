//! `POST /media/v3/upload`.
//!
//! Spec: <https://spec.matrix.org/v1.19/client-server-api/#post_matrixmediav3upload>.

use std::sync::Arc;

use bytes::Bytes;
use matron_storage::{Batch, Key, Table, keyring::NO_EXPIRY};
use ruma::UserId;
use tokio::sync::OwnedSemaphorePermit;

use super::{
    MediaMeta, Mxc,
    disk::{ORIGINAL, Place, blocking},
    meta_key, metadata,
};
use crate::{Core, Error, house::to_json};

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// The longest content type and file name that are kept, bytes.
const MAX_TEXT_BYTES: usize = 255;

/// A file that a user brings.
#[derive(Clone, Debug, Default)]
pub struct NewUpload {
    /// `Content-Type`, if given.
    pub content_type: Option<String>,
    /// `filename`, if given.
    pub file_name: Option<String>,
    /// The file.
    pub content: Bytes,
    /// The lifetime that the client asks for, ms; the deployment's floor holds beside it.
    pub lifetime_ms: Option<u64>,
}

/// What is kept of texts that clients and servers choose.
pub(super) fn tidy(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty() && text.len() <= MAX_TEXT_BYTES && !text.chars().any(char::is_control))
}

impl Core {
    /// Room for an upload of this size in memory; held until it is on disk.
    ///
    /// # Errors
    /// `M_TOO_LARGE` for more than the operator allows.
    pub async fn upload_budget(&self, size_bytes: u64) -> Result<OwnedSemaphorePermit, Error> {
        self.check_upload_size(size_bytes)?;
        // Pictures are in memory twice while their metadata is taken out.
        let kib = u32::try_from(size_bytes.saturating_mul(2).div_ceil(1024)).unwrap_or(u32::MAX);
        let kib = kib.clamp(1, u32::try_from(super::UPLOAD_BUDGET_KIB).unwrap_or(1));
        let budget = Arc::clone(&self.media.uploads);
        budget.acquire_many_owned(kib).await.map_err(|_| Error::internal("the budget of uploads was closed"))
    }

    fn check_upload_size(&self, size_bytes: u64) -> Result<(), Error> {
        let max_bytes = self.settings.max_upload_bytes;
        if size_bytes > max_bytes {
            return Err(Error::TooLarge(format!("a file may have at most {max_bytes} bytes").into()));
        }
        Ok(())
    }

    /// The file is on disk, sealed, without the metadata of pictures; under which name it is found.
    ///
    /// # Errors
    /// `M_TOO_LARGE`, [`Error::Store`] also for a full disk.
    pub async fn upload_media(&self, user: &UserId, upload: NewUpload) -> Result<Mxc, Error> {
        let mxc = Mxc::fresh(&self.server_name);
        let mut batch = Batch::new();
        batch.expect_absent(Table::MediaMeta, meta_key(&mxc));
        self.store_upload(batch, user, &mxc, upload).await?;
        Ok(mxc)
    }

    pub(super) async fn store_upload(
        &self,
        batch: Batch,
        user: &UserId,
        mxc: &Mxc,
        upload: NewUpload,
    ) -> Result<(), Error> {
        self.check_upload_size(upload.content.len() as u64)?;
        self.permit_media_upload(user, upload.content.len() as u64).await?;
        let given = upload.content;
        let content = blocking(move || Ok(metadata::strip(given))).await?;
        // Clients upload what they encrypted as this type, and as nothing else.
        let is_encrypted = upload.content_type.as_deref().is_none_or(|kind| kind == "application/octet-stream");
        let of_rooms_ms = if is_encrypted { self.encrypted_rooms_lifetime_ms(user)? } else { None };
        let bounds = [upload.lifetime_ms, self.media_lifetime_floor_ms(), of_rooms_ms];
        let lifetime_ms = bounds.into_iter().flatten().min();
        let now_ms = self.now_ms();
        let meta = MediaMeta {
            uploader: Some(user.to_owned()),
            content_type: tidy(upload.content_type),
            file_name: tidy(upload.file_name),
            created_ms: now_ms,
            expires_ms: lifetime_ms.map(|lifetime_ms| now_ms.saturating_add(lifetime_ms)),
            ..MediaMeta::default()
        };
        let stored = self.store_file(batch, mxc, meta, content).await?;
        self.prepare_thumbnails(mxc, stored.content_type.as_deref());
        Ok(())
    }

    /// The longest lifetime among the user's encrypted rooms, ms; `None` if one of them has none, or there is none.
    ///
    /// The server cannot see to which room an encrypted file belongs; it belongs to one of these.
    pub(super) fn encrypted_rooms_lifetime_ms(&self, user: &UserId) -> Result<Option<u64>, Error> {
        let mut longest_ms = None;
        for room in self.joined_rooms(user)? {
            let Some(room) = self.find_room(&room)? else { continue };
            let mut inner = room.lock();
            if inner.state_content::<serde::de::IgnoredAny>(self, "m.room.encryption", "")?.is_none() {
                continue;
            }
            let Some(lifetime_ms) = self.room_lifetime_ms(&mut inner)? else { return Ok(None) };
            longest_ms = longest_ms.max(Some(lifetime_ms));
        }
        Ok(longest_ms)
    }

    /// The content is on disk and the batch that names it is committed; the meta as stored.
    pub(super) async fn store_file(
        &self,
        mut batch: Batch,
        mxc: &Mxc,
        mut meta: MediaMeta,
        content: Bytes,
    ) -> Result<MediaMeta, Error> {
        meta.bucket = bucket_of(meta.created_ms, meta.expires_ms);
        meta.size_bytes = content.len() as u64;
        let place = self.place_of(meta.bucket, &content).await?;
        meta.file = Some(place.file.clone());
        batch.put(Table::MediaMeta, meta_key(mxc), to_json(&meta)?);
        batch.put(Table::Misc, reference_key(&place, mxc), Vec::new());
        if let Some(expires_ms) = meta.expires_ms {
            batch.put(Table::MediaExpiry, expiry_key(expires_ms, mxc), Vec::new());
        }
        // INVARIANT: held over the write and the commit, so that nobody removes the file in between.
        let _writing = self.lock_file(&place).await;
        let disk = self.disk();
        blocking(move || disk.write(&place, ORIGINAL, &content)).await?;
        self.commit_or(batch, Error::CannotOverwriteMedia).await?;
        Ok(meta)
    }
}

/// The bucket of a file: the end of its last hour, or the day it came if it has no end.
pub(super) fn bucket_of(created_ms: u64, expires_ms: Option<u64>) -> u64 {
    match expires_ms {
        Some(expires_ms) => {
            let step = (expires_ms.saturating_sub(created_ms) / 10).clamp(1_000, DAY_MS);
            expires_ms.div_ceil(step).saturating_mul(step)
        }
        None => NO_EXPIRY | (created_ms / DAY_MS),
    }
}

/// Says that a name refers to a file.
pub(super) fn reference_key(place: &Place, mxc: &Mxc) -> Key {
    references(place).text(&mxc.server).text(&mxc.id)
}

/// Every name that refers to a file.
pub(super) fn references(place: &Place) -> Key {
    Key::new().text("media_reference").number(place.bucket).text(&place.file)
}

pub(super) fn expiry_key(expires_ms: u64, mxc: &Mxc) -> Key {
    Key::new().number(expires_ms).text(&mxc.server).text(&mxc.id)
}

//! `POST /media/v1/create` and `PUT /media/v3/upload/{server}/{id}`: a name first, the file later.
//!
//! Spec: <https://spec.matrix.org/v1.19/client-server-api/#post_matrixmediav1create>.

use matron_storage::{Batch, CommitError, Key, KeyReader, Order, Table};
use ruma::UserId;

use super::{MediaMeta, Mxc, NewUpload, meta_key, upload::expiry_key};
use crate::{
    Core, Error,
    house::{from_json, to_json},
};

/// How long a name waits for its file, ms.
const UNUSED_LIFETIME_MS: u64 = 24 * 60 * 60 * 1000;

/// How many names of one user may wait.
const MAX_PENDING: usize = 50;

fn pending_prefix(user: &UserId) -> Key {
    Key::new().text("media_pending").text(user)
}

impl Core {
    /// A name for a file that the user uploads later, and until when that must be, ms since the epoch.
    ///
    /// # Errors
    /// `M_LIMIT_EXCEEDED` when too many of the user's names wait.
    pub async fn create_media(&self, user: &UserId) -> Result<(Mxc, u64), Error> {
        let now_ms = self.now_ms();
        let waiting =
            self.store.scan(Table::Misc, &pending_prefix(user).prefix(), Order::Ascending, 4 * MAX_PENDING)?;
        let mut batch = Batch::new();
        let mut count = 0_usize;
        let mut first_ends_ms = u64::MAX;
        for (key, bytes) in waiting {
            let ends_ms: u64 = from_json(Table::Misc, &bytes)?;
            if ends_ms <= now_ms {
                batch.delete(Table::Misc, key);
            } else {
                count = count.saturating_add(1);
                first_ends_ms = first_ends_ms.min(ends_ms);
            }
        }
        if count >= MAX_PENDING {
            return Err(Error::LimitExceeded { retry_after_ms: first_ends_ms.saturating_sub(now_ms) });
        }
        let mxc = Mxc::fresh(&self.server_name);
        let ends_ms = now_ms.saturating_add(UNUSED_LIFETIME_MS);
        let meta = MediaMeta {
            uploader: Some(user.to_owned()),
            created_ms: now_ms,
            unused_expires_ms: Some(ends_ms),
            ..MediaMeta::default()
        };
        batch.expect_absent(Table::MediaMeta, meta_key(&mxc));
        batch.put(Table::MediaMeta, meta_key(&mxc), to_json(&meta)?);
        batch.put(Table::MediaExpiry, expiry_key(ends_ms, &mxc), Vec::new());
        batch.put(Table::Misc, pending_prefix(user).text(&mxc.id), to_json(&ends_ms)?);
        self.commit(batch).await?;
        Ok((mxc, ends_ms))
    }

    /// The file belongs to the name that its user created before.
    ///
    /// # Errors
    /// `M_NOT_FOUND` for a name that was not created or waited too long, `M_FORBIDDEN` for another user's,
    /// `M_CANNOT_OVERWRITE_MEDIA`, `M_TOO_LARGE`.
    pub async fn upload_pending_media(&self, user: &UserId, mxc: &Mxc, upload: NewUpload) -> Result<(), Error> {
        let unknown = || Error::not_found("this media id was not created, or waited too long for its file");
        if !self.is_local(mxc.server()) {
            return Err(unknown());
        }
        let row = meta_key(mxc);
        let Some(bytes) = self.store.get(Table::MediaMeta, row.as_bytes())? else { return Err(unknown()) };
        let meta: MediaMeta = from_json(Table::MediaMeta, &bytes)?;
        if meta.uploader.as_deref() != Some(user) {
            return Err(Error::forbidden("this media id was created by somebody else"));
        }
        if meta.file.is_some() {
            return Err(Error::CannotOverwriteMedia);
        }
        let ends_ms = meta.unused_expires_ms.unwrap_or(0);
        if ends_ms <= self.now_ms() {
            return Err(unknown());
        }
        let mut batch = Batch::new();
        batch.expect_equals(Table::MediaMeta, row, bytes);
        batch.delete(Table::MediaExpiry, expiry_key(ends_ms, mxc));
        batch.delete(Table::Misc, pending_prefix(user).text(&mxc.id));
        self.store_upload(batch, user, mxc, upload).await?;
        self.media.arrived.notify_waiters();
        Ok(())
    }

    /// A name that waited too long is gone. Nothing happens if its file came.
    pub(super) async fn drop_unused(&self, mxc: &Mxc, bytes: Vec<u8>, meta: &MediaMeta) -> Result<(), Error> {
        let mut batch = Batch::new();
        batch.expect_equals(Table::MediaMeta, meta_key(mxc), bytes);
        batch.delete(Table::MediaMeta, meta_key(mxc));
        if let Some(ends_ms) = meta.unused_expires_ms {
            batch.delete(Table::MediaExpiry, expiry_key(ends_ms, mxc));
        }
        if let Some(user) = &meta.uploader {
            batch.delete(Table::Misc, pending_prefix(user).text(&mxc.id));
        }
        match self.store.submit(batch).await {
            Ok(_) | Err(CommitError::Conflict(_)) => Ok(()),
            Err(CommitError::Store(error)) => Err(error.into()),
        }
    }
}

/// The name in a row of `media_expiry`, and its time.
pub(super) fn read_expiry_key(key: &[u8]) -> Option<(u64, Mxc)> {
    let mut reader = KeyReader::new(key);
    let at_ms = reader.number()?;
    let server = reader.text()?.try_into().ok()?;
    Some((at_ms, Mxc::new(server, &reader.text()?).ok()?))
}

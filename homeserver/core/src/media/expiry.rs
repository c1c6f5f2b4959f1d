//! The death of media: on time, with the event it belongs to, or by an operator.

use std::collections::BTreeSet;

use matron_storage::{Batch, CommitError, Key, KeyRange, KeyReader, Order, Table};
use ruma::EventId;
use serde_json::Value;

use super::{
    MediaMeta, Mxc,
    disk::{KEY_ROOM, ORIGINAL, Place, blocking},
    meta_key,
    pending::read_expiry_key,
    upload::{expiry_key, reference_key, references},
};
use crate::{
    Core, Error,
    house::{from_json, to_json},
    rooms::StoredEvent,
};

/// How many rows one step of expiry looks at.
const PAGE: usize = 500;

/// How many names an event's content may refer to.
const MAX_IN_EVENT: usize = 32;

/// How many events of one file are looked at.
const MAX_EVENTS: usize = 1_000;

/// The names of files that an event's content refers to, where the server can see them.
#[must_use]
pub fn media_in_content(content: &Value) -> BTreeSet<Mxc> {
    let mut found = BTreeSet::new();
    let mut open = vec![content];
    while let Some(value) = open.pop() {
        match value {
            Value::String(text) => found.extend(Mxc::parse(text)),
            Value::Array(values) => open.extend(values),
            Value::Object(fields) => open.extend(fields.values()),
            _ => {}
        }
        if found.len() >= MAX_IN_EVENT {
            break;
        }
    }
    found
}

fn of_event(event: &EventId) -> Key {
    Key::new().text(event)
}

fn of_media(mxc: &Mxc) -> Key {
    Key::new().text("event_of_media").text(&mxc.server).text(&mxc.id)
}

impl Core {
    /// Files that a message refers to, where the server can see that, belong to it. Only its sender's own files and copies of
    /// remote ones do: nobody's file dies because somebody else quoted its name.
    pub(crate) async fn attach_media_of(&self, event: &StoredEvent) {
        if event.pdu.is_state() || !event.pdu.content_str().contains("mxc:") {
            return;
        }
        let expires_ms = Some(event.record.expires_ms).filter(|expires_ms| *expires_ms > 0);
        for mxc in media_in_content(&event.pdu.content_value()) {
            let attached = match self.find_media(&mxc) {
                Ok(Some(meta)) if meta.uploader.is_none() || meta.uploader.as_deref() == Some(event.pdu.sender()) => {
                    self.attach_media_to_event(event.id(), &mxc, expires_ms).await
                }
                Ok(_) => Ok(()),
                Err(error) => Err(error),
            };
            if let Err(error) = attached {
                tracing::warn!(event.id = %event.id(), %error, "a file was not attached to its event; its own end holds");
            }
        }
    }

    /// The file belongs to the event, and dies when the event does, or before. A file that also belongs to an event without
    /// an end keeps its own.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn attach_media_to_event(
        &self,
        event: &EventId,
        mxc: &Mxc,
        event_expires_ms: Option<u64>,
    ) -> Result<(), Error> {
        let mut batch = Batch::new();
        batch.put(Table::MediaOfEvent, of_event(event).text(&mxc.server).text(&mxc.id), Vec::new());
        batch.put(Table::Misc, of_media(mxc).text(event), to_json(&event_expires_ms)?);
        self.commit(batch).await?;
        let Some(expires_ms) = event_expires_ms else { return Ok(()) };
        let others = self.store.scan(Table::Misc, &of_media(mxc).prefix(), Order::Ascending, MAX_EVENTS)?;
        for (_, value) in &others {
            if from_json::<Option<u64>>(Table::Misc, value)?.is_none() {
                return Ok(());
            }
        }
        self.seal_until(mxc, expires_ms).await
    }

    /// The file has this end, and lies under a data key that dies then. A file that has an end keeps it.
    async fn seal_until(&self, mxc: &Mxc, expires_ms: u64) -> Result<(), Error> {
        let row = meta_key(mxc);
        for _ in 0..16 {
            let Some(bytes) = self.store.get(Table::MediaMeta, row.as_bytes())? else { return Ok(()) };
            let meta: MediaMeta = from_json(Table::MediaMeta, &bytes)?;
            let (Some(file), None) = (meta.file.clone(), meta.expires_ms) else { return Ok(()) };
            let old = Place { bucket: meta.bucket, file };
            let content = {
                let (disk, old, size_bytes) = (self.disk(), old.clone(), meta.size_bytes);
                blocking(move || disk.read(&old, ORIGINAL, size_bytes)).await?
            };
            let Some(content) = content else { return Ok(()) };
            let mut batch = Batch::new();
            batch.expect_equals(Table::MediaMeta, row.clone(), bytes);
            batch.delete(Table::Misc, reference_key(&old, mxc));
            let meta = MediaMeta { expires_ms: Some(expires_ms), ..meta };
            match self.store_file(batch, mxc, meta, content).await {
                Ok(_) => return self.remove_unreferenced(old).await,
                Err(Error::CannotOverwriteMedia) => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::internal("a file changed too often to be given an end"))
    }

    /// The file is gone if no name refers to it.
    async fn remove_unreferenced(&self, place: Place) -> Result<(), Error> {
        let _removing = self.lock_file(&place).await;
        if !self.store.scan(Table::Misc, &references(&place).prefix(), Order::Ascending, 1)?.is_empty() {
            return Ok(());
        }
        let disk = self.disk();
        blocking(move || disk.remove(&place)).await
    }

    /// Files that belong to no event but this one are gone. How many.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn purge_media_of_event(&self, event: &EventId) -> Result<usize, Error> {
        let rows = self.store.scan(Table::MediaOfEvent, &of_event(event).prefix(), Order::Ascending, MAX_IN_EVENT)?;
        let mut purged = 0_usize;
        for (key, _) in rows {
            let mut reader = KeyReader::new(&key);
            reader.text();
            let name = reader.text().and_then(|server| server.try_into().ok()).zip(reader.text());
            let Some(mxc) = name.and_then(|(server, id)| Mxc::new(server, &id).ok()) else { continue };
            let mut batch = Batch::new();
            batch.delete(Table::MediaOfEvent, key);
            batch.delete(Table::Misc, of_media(&mxc).text(event));
            self.commit(batch).await?;
            if self.store.scan(Table::Misc, &of_media(&mxc).prefix(), Order::Ascending, 1)?.is_empty() {
                self.purge_media(&mxc).await?;
                purged = purged.saturating_add(1);
            }
        }
        Ok(purged)
    }

    /// The name, the file if nothing else refers to it, and its thumbnails are gone. Whether there was anything.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn purge_media(&self, mxc: &Mxc) -> Result<bool, Error> {
        let row = meta_key(mxc);
        let Some(bytes) = self.store.get(Table::MediaMeta, row.as_bytes())? else { return Ok(false) };
        let meta: MediaMeta = from_json(Table::MediaMeta, &bytes)?;
        let Some(file) = meta.file.clone() else {
            self.drop_unused(mxc, bytes, &meta).await?;
            return Ok(true);
        };
        let place = Place { bucket: meta.bucket, file };
        // INVARIANT: held until the file is gone, so that no upload takes over a file that is being removed.
        let _removing = self.lock_file(&place).await;
        let mut batch = Batch::new();
        batch.delete(Table::MediaMeta, row);
        batch.delete(Table::Misc, reference_key(&place, mxc));
        if let Some(expires_ms) = meta.expires_ms {
            batch.delete(Table::MediaExpiry, expiry_key(expires_ms, mxc));
        }
        let rows = self.store.scan(Table::Misc, &references(&place).prefix(), Order::Ascending, 2)?;
        let own = reference_key(&place, mxc);
        let shared = rows.iter().any(|(key, _)| key != own.as_bytes());
        // The file goes first: a crash in between leaves a name that leads nowhere, not a file that nobody knows.
        if !shared {
            let disk = self.disk();
            blocking(move || disk.remove(&place)).await?;
        }
        self.commit(batch).await?;
        Ok(true)
    }

    /// Everything whose time has come is gone, and data keys of media whose buckets have ended are destroyed. How many names.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn expire_media(&self) -> Result<usize, Error> {
        let now_ms = self.now_ms();
        let due = KeyRange::between(Key::new(), Key::new().number(now_ms.saturating_add(1)));
        let mut expired = 0_usize;
        loop {
            let page = self.store.scan(Table::MediaExpiry, &due, Order::Ascending, PAGE)?;
            if page.is_empty() {
                break;
            }
            for (key, _) in page {
                if let Some((at_ms, mxc)) = read_expiry_key(&key)
                    && self.is_due(&mxc, at_ms)?
                {
                    self.purge_media(&mxc).await?;
                    expired = expired.saturating_add(1);
                }
                let mut batch = Batch::new();
                batch.delete(Table::MediaExpiry, key);
                self.commit(batch).await?;
            }
        }
        self.destroy_media_keys(now_ms).await?;
        Ok(expired)
    }

    /// Whether the row still says when the name dies.
    fn is_due(&self, mxc: &Mxc, at_ms: u64) -> Result<bool, Error> {
        let Some(meta) = self.find_media(mxc)? else { return Ok(false) };
        Ok(if meta.file.is_some() { meta.expires_ms == Some(at_ms) } else { meta.unused_expires_ms == Some(at_ms) })
    }

    async fn destroy_media_keys(&self, now_ms: u64) -> Result<(), Error> {
        let keyring = std::sync::Arc::clone(&self.keyring);
        let disk = self.disk();
        let destroyed = blocking(move || {
            let ended: Vec<u64> = keyring.buckets(KEY_ROOM).into_iter().filter(|bucket| *bucket <= now_ms).collect();
            for bucket in &ended {
                keyring.destroy(KEY_ROOM, *bucket)?;
                disk.remove_bucket(*bucket)?;
            }
            Ok(ended)
        })
        .await?;
        if destroyed.is_empty() {
            return Ok(());
        }
        let mut batch = Batch::new();
        for bucket in destroyed {
            batch.delete(Table::Misc, Key::new().text("media_address_key").number(bucket));
        }
        self.commit(batch).await?;
        Ok(())
    }

    /// The file is hidden from everyone, or shown again.
    ///
    /// # Errors
    /// `M_NOT_FOUND`.
    pub async fn quarantine_media(&self, mxc: &Mxc, quarantined: bool) -> Result<(), Error> {
        let row = meta_key(mxc);
        for _ in 0..16 {
            let Some(bytes) = self.store.get(Table::MediaMeta, row.as_bytes())? else {
                return Err(Error::not_found("there is no such media"));
            };
            let meta = MediaMeta { quarantined, ..from_json(Table::MediaMeta, &bytes)? };
            let mut batch = Batch::new();
            batch.expect_equals(Table::MediaMeta, row.clone(), bytes);
            batch.put(Table::MediaMeta, row.clone(), to_json(&meta)?);
            match self.store.submit(batch).await {
                Ok(_) => return Ok(()),
                Err(CommitError::Conflict(_)) => {}
                Err(CommitError::Store(error)) => return Err(error.into()),
            }
        }
        Err(Error::internal("a file changed too often to be quarantined"))
    }
}

//! Files, as operators handle them.

use matron_storage::{Key, KeyReader, Order, Table};
use ruma::{EventId, RoomId, UserId};

use crate::{
    Core, Error,
    house::from_json,
    media::{MediaMeta, Mxc},
    push::timeline_event,
};

/// How many rows are read at once.
const PAGE: usize = 500;

/// How many files one request may name.
const MAX_FILES: usize = 10_000;

fn mxc_of(reader: &mut KeyReader<'_>) -> Option<Mxc> {
    let server = reader.text()?.try_into().ok()?;
    Mxc::new(server, &reader.text()?).ok()
}

impl Core {
    /// The files that a user has uploaded here, at most ten thousand.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn media_of_user(&self, user: &UserId) -> Result<Vec<(Mxc, MediaMeta)>, Error> {
        self.local_media_where(|meta| meta.uploader.as_deref() == Some(user))
    }

    /// This server's own files for which this holds, at most ten thousand.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn local_media_where(&self, holds: impl Fn(&MediaMeta) -> bool) -> Result<Vec<(Mxc, MediaMeta)>, Error> {
        let mut range = Key::new().text(&self.server_name).prefix();
        let mut found = Vec::new();
        while found.len() < MAX_FILES {
            let rows = self.store.scan(Table::MediaMeta, &range, Order::Ascending, PAGE)?;
            let Some((last, _)) = rows.last() else { break };
            range = range.after(last);
            for (key, value) in &rows {
                let meta: MediaMeta = from_json(Table::MediaMeta, value)?;
                if let (Some(mxc), true) = (mxc_of(&mut KeyReader::new(key)), holds(&meta)) {
                    found.push((mxc, meta));
                }
            }
        }
        Ok(found)
    }

    /// The files that a room's events name, as far as they can be read here: none of encrypted rooms' messages.
    ///
    /// # Errors
    /// `M_NOT_FOUND` for an unknown room.
    pub fn media_of_room(&self, room: &RoomId) -> Result<Vec<Mxc>, Error> {
        self.open_room(room)?;
        let mut range = Key::new().text(room).prefix();
        let mut found = Vec::new();
        while found.len() < MAX_FILES {
            let rows = self.store.scan(Table::RoomTimeline, &range, Order::Ascending, PAGE)?;
            let Some((last, _)) = rows.last() else { break };
            range = range.after(last);
            for (_, value) in &rows {
                let id = timeline_event(value);
                if let Some(id) = id {
                    found.extend(self.media_of_event(&id)?);
                }
            }
        }
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    fn media_of_event(&self, event: &EventId) -> Result<Vec<Mxc>, Error> {
        let rows = self.store.scan(Table::MediaOfEvent, &Key::new().text(event).prefix(), Order::Ascending, PAGE)?;
        let read = |key: &[u8]| {
            let mut reader = KeyReader::new(key);
            reader.text()?;
            mxc_of(&mut reader)
        };
        Ok(rows.iter().filter_map(|(key, _)| read(key)).collect())
    }
}

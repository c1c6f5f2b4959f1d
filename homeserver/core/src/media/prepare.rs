//! Thumbnails that clients are likely to ask for are made when a picture comes, from one decoding.

use std::collections::VecDeque;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{
    Method, Mxc, ThumbnailRequest,
    animation::is_animated,
    disk::{ORIGINAL, blocking},
    download::place_of,
    thumbnail::{MAX_FILE_BYTES, decode, encode, is_photograph, shrink},
};
use crate::{Core, Error};

/// How many pictures wait; more are made smaller when somebody asks.
const MAX_WAITING: usize = 64;

/// SPEC: v1.19 "Thumbnails": what servers should produce.
const PREPARED: [(u32, u32, Method); 5] = [
    (32, 32, Method::Crop),
    (96, 96, Method::Crop),
    (320, 240, Method::Scale),
    (640, 480, Method::Scale),
    (800, 600, Method::Scale),
];

/// Pictures that came and were not looked at yet.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    pictures: Mutex<VecDeque<Mxc>>,
    pub(super) arrived: Notify,
}

impl Core {
    /// The picture is made smaller soon, if not too many wait. What a client encrypted, nobody can make smaller.
    pub(super) fn prepare_thumbnails(&self, mxc: &Mxc, content_type: Option<&str>) {
        let kinds = ["image/png", "image/jpeg", "image/gif", "image/webp"];
        if !content_type.is_some_and(|kind| kinds.contains(&kind)) {
            return;
        }
        let waiting = &self.media.waiting;
        let mut pictures = waiting.pictures.lock();
        if pictures.len() < MAX_WAITING {
            pictures.push_back(mxc.clone());
            drop(pictures);
            waiting.arrived.notify_one();
        }
    }

    /// The pictures that wait are made smaller, one after the other.
    pub(super) async fn prepare_waiting(&self) {
        loop {
            let Some(mxc) = self.media.waiting.pictures.lock().pop_front() else { return };
            match self.prepare(&mxc).await {
                // What is no picture, or is too large: whoever asks for a thumbnail is told.
                Ok(()) | Err(Error::Unknown(_) | Error::TooLarge(_)) => {}
                Err(error) => tracing::warn!(%error, "thumbnails could not be made"),
            }
        }
    }

    async fn prepare(&self, mxc: &Mxc) -> Result<(), Error> {
        let Some(meta) = self.find_media(mxc)?.filter(|meta| meta.file.is_some() && meta.size_bytes <= MAX_FILE_BYTES)
        else {
            return Ok(());
        };
        let place = place_of(&meta)?;
        let disk = self.disk();
        let made = self.decode(&place, |original| original.map_or(Ok(Vec::new()), |original| make_all(&original)));
        let made = made.await?;
        // Under the lock of its file, which may be dying: a thumbnail must not outlive it.
        let _writing = self.lock_file(&place).await;
        blocking(move || {
            if disk.open(&place, ORIGINAL, 0)?.is_some() {
                for (variant, thumbnail) in made {
                    disk.write(&place, &variant, &thumbnail)?;
                }
            }
            Ok(())
        })
        .await
    }
}

fn make_all(original: &[u8]) -> Result<Vec<(String, Bytes)>, Error> {
    let picture = decode(original)?;
    let moves = is_animated(original);
    let mut made = Vec::new();
    for (width, height, method) in PREPARED {
        let size = ThumbnailRequest { width, height, method, animated: false };
        if !moves && picture.width() <= width && picture.height() <= height {
            continue;
        }
        made.push((size.variant(), encode(&shrink(&picture, size), is_photograph(original))?));
    }
    Ok(made)
}

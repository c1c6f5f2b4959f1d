//! Sealed files on disk.
//!
//! A file's name is a keyed hash of its content, under a key of its bucket that is itself sealed: equal content is kept once
//! per bucket, and once the bucket's key is destroyed neither a file nor its name tells anything.

use std::{
    fs::{self, File},
    io::{self, BufReader, BufWriter, Read, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use matron_storage::{
    Batch, CommitError, Key, Table,
    keyring::{FileOpener, KeyRing, KeyRingError},
};
use rand::Rng as _;
use sha2::Sha256;
use zeroize::Zeroizing;

use super::STRIPES;
use crate::{Core, Error};

/// Under which name the key ring knows media.
pub(super) const KEY_ROOM: &str = "media";

/// The file itself, beside its thumbnails.
pub(super) const ORIGINAL: &str = "original";

/// How much is read at once, bytes.
const READ_BYTES: usize = 256 * 1024;

/// Where sealed files lie. Every method blocks: call it on a blocking thread.
#[derive(Clone, Debug)]
pub(super) struct Disk {
    keyring: Arc<KeyRing>,
    dir: PathBuf,
}

/// Which file: its bucket and its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub bucket: u64,
    pub file: String,
}

/// A sealed file, being read.
#[derive(Debug)]
pub struct MediaReader {
    opener: Option<Box<FileOpener<BufReader<File>>>>,
    left_bytes: u64,
}

impl From<KeyRingError> for Error {
    fn from(error: KeyRingError) -> Self {
        match error {
            KeyRingError::KeyDestroyed => Self::not_found("this media has expired"),
            KeyRingError::Full => Self::Store(matron_storage::StoreError::Full),
            KeyRingError::Io(error) => io_error(error),
            error => Self::internal(format!("key ring: {error}")),
        }
    }
}

pub(super) fn io_error(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::Store(matron_storage::StoreError::Full),
        _ => Error::Store(matron_storage::StoreError::Io(error)),
    }
}

/// What runs on a blocking thread, awaited.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Error::internal("work on media panicked"))?
}

impl Disk {
    fn directory(&self, place: &Place) -> PathBuf {
        let shard = place.file.get(..2).unwrap_or("00");
        self.dir.join(format!("{:016x}", place.bucket)).join(shard).join(&place.file)
    }

    /// The content is on disk, durable, under this name; nothing happens if it is there.
    pub(super) fn write(&self, place: &Place, variant: &str, content: &[u8]) -> Result<(), Error> {
        let directory = self.directory(place);
        let target = directory.join(variant);
        if target.exists() {
            return Ok(());
        }
        make_directories(&self.dir, &directory).map_err(io_error)?;
        let mut random = [0_u8; 8];
        rand::rng().fill_bytes(&mut random);
        let unfinished = directory.join(format!(".{:016x}", u64::from_be_bytes(random)));
        let written = self.write_unfinished(place, variant, content, &unfinished);
        if let Err(error) = written {
            // What is left is a nuisance, not a danger: it is sealed, and goes with the directory.
            let _ = fs::remove_file(&unfinished);
            return Err(error);
        }
        fs::rename(&unfinished, &target).and_then(|()| sync_directory(&directory)).map_err(io_error)
    }

    fn write_unfinished(&self, place: &Place, variant: &str, content: &[u8], path: &Path) -> Result<(), Error> {
        let file = BufWriter::new(File::create_new(path).map_err(io_error)?);
        let mut sealer = self.keyring.file_sealer(KEY_ROOM, place.bucket, &aad(place, variant), file)?;
        sealer.write_all(content).map_err(io_error)?;
        let file = sealer.finish()?.into_inner().map_err(|error| io_error(error.into_error()))?;
        file.sync_all().map_err(io_error)
    }

    /// A reader at the file's beginning; `None` if there is no such file.
    pub(super) fn open(&self, place: &Place, variant: &str, size_bytes: u64) -> Result<Option<MediaReader>, Error> {
        let file = match File::open(self.directory(place).join(variant)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io_error(error)),
        };
        let file = BufReader::with_capacity(128 * 1024, file);
        let opener = self.keyring.file_opener(KEY_ROOM, place.bucket, &aad(place, variant), file)?;
        Ok(Some(MediaReader { opener: Some(Box::new(opener)), left_bytes: size_bytes }))
    }

    /// The whole file, which has at most `max_bytes`; `None` if there is none.
    pub(super) fn read(&self, place: &Place, variant: &str, max_bytes: u64) -> Result<Option<Bytes>, Error> {
        let Some(reader) = self.open(place, variant, max_bytes)? else { return Ok(None) };
        let mut content = Vec::new();
        if let Some(opener) = reader.opener {
            opener.take(max_bytes).read_to_end(&mut content).map_err(io_error)?;
        }
        Ok(Some(content.into()))
    }

    /// The file and its thumbnails are gone.
    pub(super) fn remove(&self, place: &Place) -> Result<(), Error> {
        // Parents stay: a writer of another file may just have made sure that they are there.
        let directory = self.directory(place);
        remove_tree(&directory)?;
        directory.parent().map_or(Ok(()), sync_directory).map_err(io_error)
    }

    /// Whatever is left of a bucket whose key is destroyed is gone.
    pub(super) fn remove_bucket(&self, bucket: u64) -> Result<(), Error> {
        remove_tree(&self.dir.join(format!("{bucket:016x}")))
    }
}

fn remove_tree(directory: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(directory) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(io_error(error)),
    }
}

fn aad(place: &Place, variant: &str) -> Vec<u8> {
    format!("{}/{variant}", place.file).into_bytes()
}

fn make_directories(root: &Path, directory: &Path) -> io::Result<()> {
    if directory.exists() {
        return Ok(());
    }
    fs::create_dir_all(directory)?;
    for parent in directory.ancestors().skip(1) {
        sync_directory(parent)?;
        if parent == root {
            break;
        }
    }
    Ok(())
}

fn sync_directory(directory: &Path) -> io::Result<()> {
    match File::open(directory) {
        Ok(directory) => directory.sync_all(),
        // Another remover was faster.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

impl MediaReader {
    /// Only `length` bytes from `start` on are read.
    ///
    /// # Errors
    /// [`Error::Store`] when the file cannot be read, or was changed.
    pub async fn range(mut self, start: u64, length: u64) -> Result<Self, Error> {
        let Some(mut opener) = self.opener.take() else { return Ok(self) };
        let opener = blocking(move || {
            io::copy(&mut (&mut opener).take(start), &mut io::sink()).map_err(io_error)?;
            Ok(opener)
        })
        .await?;
        Ok(Self { opener: Some(opener), left_bytes: self.left_bytes.saturating_sub(start).min(length) })
    }

    /// The next part, or `None` at the end.
    ///
    /// # Errors
    /// [`Error::Store`] when the file cannot be read, or was changed.
    pub async fn next_part(&mut self) -> Result<Option<Bytes>, Error> {
        let Some(mut opener) = self.opener.take() else { return Ok(None) };
        let wanted = self.left_bytes.min(READ_BYTES as u64);
        let (opener, part) = blocking(move || {
            let mut part = Vec::with_capacity(usize::try_from(wanted).unwrap_or(READ_BYTES));
            (&mut opener).take(wanted).read_to_end(&mut part).map_err(io_error)?;
            Ok((opener, part))
        })
        .await?;
        if part.is_empty() {
            return if self.left_bytes == 0 {
                Ok(None)
            } else {
                Err(Error::internal("a media file is shorter than it was"))
            };
        }
        self.left_bytes = self.left_bytes.saturating_sub(part.len() as u64);
        self.opener = Some(opener);
        Ok(Some(part.into()))
    }
}

impl Core {
    pub(super) fn disk(&self) -> Disk {
        Disk { keyring: Arc::clone(&self.keyring), dir: self.media_dir.clone() }
    }

    /// The name of this content in this bucket.
    pub(super) async fn place_of(&self, bucket: u64, content: &Bytes) -> Result<Place, Error> {
        let key = self.address_key(bucket).await?;
        let content = content.clone();
        blocking(move || {
            let mut mac =
                Hmac::<Sha256>::new_from_slice(&key).map_err(|_| Error::internal("a hash key has no length"))?;
            mac.update(&content);
            let file = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
            Ok(Place { bucket, file })
        })
        .await
    }

    /// The bucket's key for names, made at the bucket's first file.
    async fn address_key(&self, bucket: u64) -> Result<Zeroizing<Vec<u8>>, Error> {
        let row = Key::new().text("media_address_key").number(bucket);
        for _ in 0..16 {
            let keyring = Arc::clone(&self.keyring);
            if let Some(sealed) = self.store.get(Table::Misc, row.as_bytes())? {
                let open = move || Ok(keyring.open_sealed(KEY_ROOM, bucket, b"media names", &sealed)?);
                return blocking(open).await.map(Zeroizing::new);
            }
            let sealed = blocking(move || {
                let mut key = Zeroizing::new([0_u8; 32]);
                rand::rng().fill_bytes(key.as_mut_slice());
                Ok(keyring.seal(KEY_ROOM, bucket, b"media names", key.as_slice())?)
            })
            .await?;
            let mut batch = Batch::new();
            batch.expect_absent(Table::Misc, row.clone());
            batch.put(Table::Misc, row.clone(), sealed);
            match self.store.submit(batch).await {
                Ok(_) | Err(CommitError::Conflict(_)) => {}
                Err(CommitError::Store(error)) => return Err(error.into()),
            }
        }
        Err(Error::internal("the key for names of media cannot be made"))
    }

    /// Held while a file is written and referred to, or checked for references and removed.
    pub(super) async fn lock_file(&self, place: &Place) -> Option<tokio::sync::MutexGuard<'_, ()>> {
        let number = u64::from_str_radix(place.file.get(..8).unwrap_or("0"), 16).unwrap_or(0);
        let stripe = usize::try_from(number).unwrap_or(0) % STRIPES;
        Some(self.media.stripes.get(stripe)?.lock().await)
    }
}

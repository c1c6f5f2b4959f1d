//! The ring's file: a head that proves the master key, then slots of one sector each.

use std::{
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Write},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
};

use super::{
    KeyRingError, MasterKey,
    aead::{Cipher, NONCE_BYTES, TAG_BYTES},
    random,
    slot::{self, DataKey, SLOT_BYTES, SlotState},
};
use crate::lock;

const MAGIC: &[u8; 16] = b"MATRON KEY RING\n";
const FORMAT: u32 = 1;
const FILE_ID_BYTES: usize = 16;
/// The head has a page of its own.
const HEAD_BYTES: usize = 4096;
/// How many slots are added when none is free: half a megabyte.
const GROWTH: u32 = 1024;
/// How many slots there are at most: two gigabytes.
const MAX_SLOTS: u32 = 4 * 1024 * 1024;

/// The open file, locked for this process.
pub(super) struct SlotFile {
    file: File,
    id: [u8; FILE_ID_BYTES],
    master: Cipher,
}

impl std::fmt::Debug for SlotFile {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("SlotFile").field("file", &self.file).finish_non_exhaustive()
    }
}

impl SlotFile {
    pub(super) fn open(path: &Path, master: &MasterKey) -> Result<Self, KeyRingError> {
        let master = Cipher::new(master.bytes());
        if !path.try_exists()? {
            create(path, &master)?;
        }
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        if !lock::acquire(&file)? {
            return Err(KeyRingError::InUse);
        }
        let mut head = [0; HEAD_BYTES];
        match file.read_exact_at(&mut head, 0) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Err(foreign(path)),
            other => other?,
        }
        let id = check_head(path, &head, &master)?;
        Ok(Self { file, id, master })
    }

    /// Hands every slot to `visit`; the number of slots.
    pub(super) fn scan(&self, mut visit: impl FnMut(u32, SlotState)) -> Result<u32, KeyRingError> {
        let length = self.file.metadata()?.len().saturating_sub(to_u64(HEAD_BYTES));
        // A growth that a crash cut off may leave a part of a slot; the next growth overwrites it.
        let slots = u32::try_from(length / to_u64(SLOT_BYTES)).unwrap_or(MAX_SLOTS).min(MAX_SLOTS);
        let mut page = vec![0; SLOT_BYTES * 128];
        let mut next = 0;
        while next < slots {
            let wanted = (slots - next).min(128);
            let part = page.get_mut(..SLOT_BYTES * usize::try_from(wanted).unwrap_or(0)).unwrap_or_default();
            self.file.read_exact_at(part, offset(next))?;
            for bytes in part.chunks_exact(SLOT_BYTES) {
                visit(next, slot::unwrap(&self.master, &self.slot_aad(next), bytes));
                next = next.saturating_add(1);
            }
        }
        Ok(slots)
    }

    pub(super) fn read(&self, slot: u32) -> Result<SlotState, KeyRingError> {
        let mut bytes = [0; SLOT_BYTES];
        self.file.read_exact_at(&mut bytes, offset(slot))?;
        Ok(slot::unwrap(&self.master, &self.slot_aad(slot), &bytes))
    }

    /// The key is in the slot, though not durable before [`SlotFile::sync`].
    pub(super) fn write(&self, slot: u32, room: &str, bucket: u64, key: &DataKey) -> Result<(), KeyRingError> {
        let bytes = slot::wrap(&self.master, &self.slot_aad(slot), room, bucket, key)?;
        Ok(self.file.write_all_at(&bytes, offset(slot))?)
    }

    /// The slot holds zeroes, though not durably before [`SlotFile::sync`].
    pub(super) fn erase(&self, slot: u32) -> Result<(), KeyRingError> {
        Ok(self.file.write_all_at(&[0; SLOT_BYTES], offset(slot))?)
    }

    pub(super) fn sync(&self) -> Result<(), KeyRingError> {
        Ok(self.file.sync_data()?)
    }

    /// The file has room for more slots than `slots`; how many there are now.
    ///
    /// The room is written and flushed here, so that a full disk never meets a slot.
    pub(super) fn grow(&self, slots: u32) -> Result<u32, KeyRingError> {
        let grown = slots.saturating_add(GROWTH);
        if grown > MAX_SLOTS {
            return Err(KeyRingError::Full);
        }
        let empty = vec![0; SLOT_BYTES * usize::try_from(GROWTH).unwrap_or(0)];
        let written = self.file.write_all_at(&empty, offset(slots)).and_then(|()| self.file.sync_all());
        match written {
            Ok(()) => Ok(grown),
            Err(error) => {
                // What could be added so far is given back; if even that fails, it is only unused room.
                drop(self.file.set_len(offset(slots)));
                let full = matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded);
                Err(if full { KeyRingError::Full } else { error.into() })
            }
        }
    }

    /// Binds a slot to its file and place: a copy of a destroyed slot is worthless anywhere else.
    fn slot_aad(&self, slot: u32) -> Vec<u8> {
        [b"matron key slot\0".as_slice(), &self.id, &slot.to_be_bytes()].concat()
    }
}

fn offset(slot: u32) -> u64 {
    to_u64(HEAD_BYTES) + u64::from(slot) * to_u64(SLOT_BYTES)
}

fn to_u64(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

fn foreign(path: &Path) -> KeyRingError {
    KeyRingError::Foreign(format!("{} is not a key ring of Matron", path.display()))
}

fn head_aad(id: &[u8; FILE_ID_BYTES]) -> Vec<u8> {
    [MAGIC.as_slice(), &FORMAT.to_be_bytes(), id].concat()
}

fn create(path: &Path, master: &Cipher) -> Result<(), KeyRingError> {
    let (mut id, mut nonce) = ([0; FILE_ID_BYTES], [0; NONCE_BYTES]);
    random(&mut id)?;
    random(&mut nonce)?;
    // Nothing but a tag: only the right master key makes it.
    let proof = master.seal(&nonce, &head_aad(&id), &mut [])?;
    let mut head = [MAGIC.as_slice(), &FORMAT.to_be_bytes(), &id, &nonce, &proof].concat();
    head.resize(HEAD_BYTES, 0);
    let mut name = path.to_owned().into_os_string();
    name.push(format!(".{}.new", hex::encode(id)));
    let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&name)?;
    let written = file.write_all(&head).and_then(|()| file.sync_all()).and_then(|()| {
        // A link never replaces: if another process was faster, its ring stands.
        match fs::hard_link(&name, path) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
            _ => Ok(()),
        }
    });
    fs::remove_file(&name)?;
    written?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    Ok(File::open(directory)?.sync_all()?)
}

fn check_head(path: &Path, head: &[u8], master: &Cipher) -> Result<[u8; FILE_ID_BYTES], KeyRingError> {
    let rest = head.strip_prefix(MAGIC).ok_or_else(|| foreign(path))?;
    let (format, rest) = rest.split_first_chunk::<4>().ok_or_else(|| foreign(path))?;
    let format = u32::from_be_bytes(*format);
    if format != FORMAT {
        return Err(KeyRingError::Foreign(format!(
            "{} has format {format}; this version of Matron knows format {FORMAT}",
            path.display()
        )));
    }
    let (id, rest) = rest.split_first_chunk::<FILE_ID_BYTES>().ok_or_else(|| foreign(path))?;
    let (nonce, rest) = rest.split_first_chunk::<NONCE_BYTES>().ok_or_else(|| foreign(path))?;
    let proof = rest.first_chunk::<TAG_BYTES>().ok_or_else(|| foreign(path))?;
    master.open(nonce, &head_aad(id), &mut [], proof).map_err(|_| KeyRingError::WrongMasterKey)?;
    Ok(*id)
}

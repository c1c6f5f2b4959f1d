//! One slot: a data key with its room and bucket, wrapped by the master key, in one disk sector.

use zeroize::Zeroizing;

use super::{
    KeyRingError,
    aead::{Cipher, KEY_BYTES, NONCE_BYTES, TAG_BYTES},
    random,
};

/// A slot is one sector, so that a crash leaves it wholly old or wholly new.
pub(super) const SLOT_BYTES: usize = 512;
pub(super) const KEY_ID_BYTES: usize = 8;
const MAX_ROOM_BYTES: usize = 255;
const MAGIC: [u8; 4] = *b"MKS1";
const BODY_START: usize = MAGIC.len() + NONCE_BYTES;
const BODY_BYTES: usize = 464;
const BODY_END: usize = BODY_START + BODY_BYTES;
const TAG_END: usize = BODY_END + TAG_BYTES;

/// A data key. Wiped from memory when the last user lets go of it.
pub(super) struct DataKey {
    pub(super) id: [u8; KEY_ID_BYTES],
    pub(super) bytes: Zeroizing<[u8; KEY_BYTES]>,
}

impl std::fmt::Debug for DataKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("DataKey(redacted)")
    }
}

impl DataKey {
    pub(super) fn new() -> Result<Self, KeyRingError> {
        let mut key = Self { id: [0; KEY_ID_BYTES], bytes: Zeroizing::new([0; KEY_BYTES]) };
        random(&mut key.id)?;
        random(key.bytes.as_mut_slice())?;
        Ok(key)
    }
}

/// What a used slot holds.
#[derive(Debug)]
pub(super) struct UsedSlot {
    pub(super) room: String,
    pub(super) bucket: u64,
    pub(super) key: DataKey,
}

/// What a slot is.
#[derive(Debug)]
pub(super) enum SlotState {
    /// Nothing but zeroes: never used, or destroyed.
    Free,
    /// A key.
    Used(UsedSlot),
    /// Neither.
    Damaged,
}

/// The slot's bytes; `aad` binds them to their place in their file.
pub(super) fn wrap(
    master: &Cipher,
    aad: &[u8],
    room: &str,
    bucket: u64,
    key: &DataKey,
) -> Result<[u8; SLOT_BYTES], KeyRingError> {
    if room.len() > MAX_ROOM_BYTES {
        return Err(KeyRingError::RoomTooLong);
    }
    let length = u8::try_from(room.len()).map_err(|_| KeyRingError::RoomTooLong)?;
    let mut body = Zeroizing::new(Vec::with_capacity(BODY_BYTES));
    body.extend_from_slice(&key.id);
    body.extend_from_slice(key.bytes.as_slice());
    body.extend_from_slice(&bucket.to_be_bytes());
    body.push(length);
    body.extend_from_slice(room.as_bytes());
    body.resize(BODY_BYTES, 0);
    let mut nonce = [0; NONCE_BYTES];
    random(&mut nonce)?;
    let tag = master.seal(&nonce, aad, &mut body)?;
    let mut slot = [0; SLOT_BYTES];
    let parts = MAGIC.iter().chain(&nonce).chain(body.iter()).chain(&tag);
    for (target, byte) in slot.iter_mut().zip(parts) {
        *target = *byte;
    }
    Ok(slot)
}

/// What the slot's bytes are.
pub(super) fn unwrap(master: &Cipher, aad: &[u8], slot: &[u8]) -> SlotState {
    if slot.iter().all(|byte| *byte == 0) {
        return SlotState::Free;
    }
    read(master, aad, slot).map_or(SlotState::Damaged, SlotState::Used)
}

fn read(master: &Cipher, aad: &[u8], slot: &[u8]) -> Option<UsedSlot> {
    let nonce: &[u8; NONCE_BYTES] = slot.strip_prefix(&MAGIC)?.first_chunk()?;
    let tag: &[u8; TAG_BYTES] = slot.get(BODY_END..TAG_END)?.first_chunk()?;
    let mut body = Zeroizing::new(slot.get(BODY_START..BODY_END)?.to_vec());
    master.open(nonce, aad, &mut body, tag).ok()?;
    let (id, rest) = body.split_first_chunk::<KEY_ID_BYTES>()?;
    let (bytes, rest) = rest.split_first_chunk::<KEY_BYTES>()?;
    let (bucket, rest) = rest.split_first_chunk::<8>()?;
    let (length, rest) = rest.split_first()?;
    let room = std::str::from_utf8(rest.get(..usize::from(*length))?).ok()?;
    Some(UsedSlot {
        room: room.to_owned(),
        bucket: u64::from_be_bytes(*bucket),
        key: DataKey { id: *id, bytes: Zeroizing::new(*bytes) },
    })
}

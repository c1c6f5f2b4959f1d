//! How typed keys become bytes that sort in order.
//!
//! Integers are big-endian. Strings are followed by a zero byte. Inside of a string, the bytes 0 and 1 are written
//! `01 01` and `01 02`: so the end of a string is never in doubt, whatever follows it, and order holds for any text.
//! Device ids, state keys and transaction ids come from clients, and a JSON string may hold both.

use crate::{Slot, SlotForm};

/// Ends a string.
const END: u8 = 0;
/// Begins what stands for the bytes 0 and 1 in a string.
const ESCAPE: u8 = 1;

/// A key under construction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Key(Vec<u8>);

impl Key {
    /// An empty key.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a string, terminated.
    #[must_use]
    pub fn text(mut self, text: impl AsRef<str>) -> Self {
        let bytes = text.as_ref().as_bytes();
        // Room for a number behind it, so that most keys are allocated once.
        self.0.reserve(bytes.len().saturating_add(9));
        if bytes.iter().all(|byte| *byte > ESCAPE) {
            self.0.extend_from_slice(bytes);
        } else {
            for byte in bytes {
                match byte {
                    0 => self.0.extend_from_slice(&[ESCAPE, 1]),
                    1 => self.0.extend_from_slice(&[ESCAPE, 2]),
                    byte => self.0.push(*byte),
                }
            }
        }
        self.0.push(END);
        self
    }

    /// Adds an integer, eight bytes big-endian.
    #[must_use]
    pub fn number(mut self, number: u64) -> Self {
        self.0.extend_from_slice(&number.to_be_bytes());
        self
    }

    /// Adds raw bytes; only sensible at the end of a key.
    #[must_use]
    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Adds eight bytes that the committer fills with position `index` of the batch.
    #[must_use]
    pub fn position(mut self, index: u32, form: SlotForm) -> (Self, Slot) {
        let slot = Slot { offset: self.0.len(), index, form };
        self.0.extend_from_slice(&[0; 8]);
        (self, slot)
    }

    /// Every key that begins with this one.
    #[must_use]
    pub fn prefix(&self) -> KeyRange {
        KeyRange { start: self.0.clone(), end: successor(&self.0) }
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl From<Key> for Vec<u8> {
    fn from(key: Key) -> Self {
        key.0
    }
}

impl AsRef<[u8]> for Key {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// The smallest byte string larger than every string that begins with `prefix`; `None` if there is none.
fn successor(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xFF {
            end.push(last + 1);
            return Some(end);
        }
    }
    None
}

/// Keys from `start` (inclusive) to `end` (exclusive; `None`: to the end of the table).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyRange {
    /// The first key.
    pub start: Vec<u8>,
    /// The first key that is no longer part.
    pub end: Option<Vec<u8>>,
}

impl KeyRange {
    /// The whole table.
    #[must_use]
    pub fn all() -> Self {
        Self::default()
    }

    /// From `start` (inclusive) to `end` (exclusive).
    #[must_use]
    pub fn between(start: impl Into<Vec<u8>>, end: impl Into<Vec<u8>>) -> Self {
        Self { start: start.into(), end: Some(end.into()) }
    }

    /// Whether the key is part of it.
    #[must_use]
    pub fn contains(&self, key: &[u8]) -> bool {
        self.start.as_slice() <= key && self.end.as_deref().is_none_or(|end| key < end)
    }

    /// The part of this range that is behind `key`, for the next page of an ascending scan.
    #[must_use]
    pub fn after(mut self, key: &[u8]) -> Self {
        self.start = key.to_vec();
        self.start.push(0);
        self
    }

    /// The part of this range that is before `key`, for the next page of a descending scan.
    #[must_use]
    pub fn before(mut self, key: &[u8]) -> Self {
        self.end = Some(key.to_vec());
        self
    }
}

/// Reads a key back, part by part.
#[derive(Clone, Copy, Debug)]
pub struct KeyReader<'a>(&'a [u8]);

impl<'a> KeyReader<'a> {
    /// Begins at the front.
    #[must_use]
    pub fn new(key: &'a [u8]) -> Self {
        Self(key)
    }

    /// The next string, or `None` if there is no whole one.
    pub fn text(&mut self) -> Option<String> {
        let mut bytes = Vec::new();
        let mut rest = self.0;
        loop {
            match rest {
                [ESCAPE, escaped @ (1 | 2), tail @ ..] => {
                    bytes.push(escaped - 1);
                    rest = tail;
                }
                [ESCAPE, ..] => return None,
                [END, tail @ ..] => {
                    self.0 = tail;
                    return String::from_utf8(bytes).ok();
                }
                [byte, tail @ ..] => {
                    bytes.push(*byte);
                    rest = tail;
                }
                [] => return None,
            }
        }
    }

    /// The next integer.
    pub fn number(&mut self) -> Option<u64> {
        let (head, tail) = self.0.split_first_chunk::<8>()?;
        self.0 = tail;
        Some(u64::from_be_bytes(*head))
    }

    /// What is left.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.0
    }
}

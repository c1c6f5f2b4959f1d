//! Names of decisions, short enough to be read out over the telephone.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

use crate::revision::Digest;

/// Crockford's alphabet: no I, L, O or U.
const ALPHABET: [char; 32] = [
    '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F', 'G', 'H', 'J', 'K', 'M', 'N', 'P',
    'Q', 'R', 'S', 'T', 'V', 'W', 'X', 'Y', 'Z',
];
const SYMBOLS: usize = 12;
const MASK: u64 = (1 << 60) - 1;

/// The name of an audit entry: 60 bits, written `7K3F-9QXM-2B4T`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DecisionId(u64);

/// The text is no decision id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a decision id has twelve letters and digits, such as 7K3F-9QXM-2B4T")]
pub struct DecisionIdError;

impl DecisionId {
    /// The id made of these random bytes.
    #[must_use]
    pub fn from_random(bytes: [u8; 8]) -> Self {
        Self(u64::from_be_bytes(bytes) & MASK)
    }

    /// The id made of a digest: equal digests have equal ids.
    #[must_use]
    pub fn from_digest(digest: &Digest) -> Self {
        let number = digest.as_bytes().iter().take(8).fold(0_u64, |number, byte| (number << 8) | u64::from(*byte));
        Self(number & MASK)
    }

    /// The id as a number below 2^60, for keys in storage.
    #[must_use]
    pub fn as_u64(self) -> u64 {
        self.0
    }
}

impl fmt::Display for DecisionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for place in 0..SYMBOLS {
            if place > 0 && place % 4 == 0 {
                f.write_str("-")?;
            }
            let symbol = (self.0 >> (5 * (SYMBOLS - 1 - place))) & 31;
            let symbol = usize::try_from(symbol).ok().and_then(|index| ALPHABET.get(index)).copied();
            write!(f, "{}", symbol.unwrap_or('0'))?;
        }
        Ok(())
    }
}

impl fmt::Debug for DecisionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for DecisionId {
    type Err = DecisionIdError;

    /// Forgives case, hyphens and spaces, and reads O as 0, I and L as 1.
    fn from_str(text: &str) -> Result<Self, DecisionIdError> {
        let mut number = 0_u64;
        let mut count = 0;
        for character in text.chars().filter(|c| !matches!(c, '-' | ' ')) {
            let meant = match character.to_ascii_uppercase() {
                'O' => '0',
                'I' | 'L' => '1',
                other => other,
            };
            let value = ALPHABET.iter().position(|symbol| *symbol == meant).ok_or(DecisionIdError)?;
            count += 1;
            if count > SYMBOLS {
                return Err(DecisionIdError);
            }
            number = (number << 5) | u64::try_from(value).map_err(|_| DecisionIdError)?;
        }
        if count == SYMBOLS { Ok(Self(number)) } else { Err(DecisionIdError) }
    }
}

impl Serialize for DecisionId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for DecisionId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

//! The sync token: how far a client has been told, in each of the streams.

use std::{fmt, str::FromStr};

use matron_storage::StreamPos;

use crate::Error;

/// How far a client has been told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SyncToken {
    /// The one stream of everything that is stored.
    pub stream: StreamPos,
    /// To-device messages: behind `stream` when more wait than one answer holds.
    pub to_device: StreamPos,
    /// Typing and presence, which have a serial of their own.
    pub ephemeral: u64,
}

impl fmt::Display for SyncToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "s{}_{}_{}", self.stream.0, self.to_device.0, self.ephemeral)
    }
}

impl FromStr for SyncToken {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let malformed = || Error::invalid("this is not a token of this server");
        let mut numbers = text
            .strip_prefix('s')
            .ok_or_else(malformed)?
            .split('_')
            .map(|number| number.parse::<u64>().map_err(|_| malformed()));
        let mut next = || numbers.next().ok_or_else(malformed)?;
        let token = Self { stream: StreamPos(next()?), to_device: StreamPos(next()?), ephemeral: next()? };
        if numbers.next().is_some() {
            return Err(malformed());
        }
        Ok(token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_reads_back_as_it_was_written() {
        let token = SyncToken { stream: StreamPos(7), to_device: StreamPos(3), ephemeral: u64::MAX };
        assert_eq!(token.to_string().parse::<SyncToken>().ok(), Some(token));
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["", "s", "s1", "s1_2", "s1_2_3_4", "s1_2_x", "t1_2_3", "s-1_2_3", "s1_2_99999999999999999999"] {
            assert!(text.parse::<SyncToken>().is_err(), "{text}");
        }
    }
}

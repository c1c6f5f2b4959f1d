//! Places in a room's timeline, as clients name them: `t` and the order of the row that comes next, or a sync token.

use matron_storage::StreamPos;
use ruma::RoomId;

use crate::{
    Error,
    sync::{SyncToken, timeline::timeline_of},
};

/// The gap before the row with this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Gap(pub u64);

impl Gap {
    /// Before everything.
    pub const START: Self = Self(0);
    /// After everything.
    pub const END: Self = Self(u64::MAX);

    /// Reads a token of `/messages`, `/context` or `/sync`.
    ///
    /// # Errors
    /// [`Error::InvalidParam`] for anything else.
    pub fn parse(text: &str) -> Result<Self, Error> {
        match text.strip_prefix('t') {
            Some(number) => number.parse().map(Self).map_err(|_| Error::invalid("this is not a token of this server")),
            None => {
                let token: SyncToken = text.parse()?;
                Ok(Self(timeline_of(token.stream).saturating_add(1)))
            }
        }
    }

    /// The position up to which everything came before the gap.
    #[must_use]
    pub fn position(self) -> StreamPos {
        StreamPos(self.0.saturating_sub((1 << 63) | 1))
    }

    /// Just after the row with this order.
    #[must_use]
    pub fn after(order: u64) -> Self {
        Self(order.saturating_add(1))
    }
}

impl std::fmt::Display for Gap {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "t{}", self.0)
    }
}

/// In which direction a client reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Direction {
    /// From new to old.
    #[default]
    Backward,
    /// From old to new.
    Forward,
}

impl Direction {
    /// `b` or `f`.
    ///
    /// # Errors
    /// [`Error::InvalidParam`] for anything else.
    pub fn parse(text: &str) -> Result<Self, Error> {
        match text {
            "b" => Ok(Self::Backward),
            "f" => Ok(Self::Forward),
            _ => Err(Error::invalid("`dir` is `b` or `f`")),
        }
    }
}

/// The rows of a room between two gaps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stretch<'a> {
    /// The room.
    pub room: &'a RoomId,
    /// Where it begins; the older end.
    pub from: Gap,
    /// Where it ends; the newer end.
    pub to: Gap,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sync_token_is_the_gap_after_its_position() {
        assert_eq!(Gap::parse("s7_3_0").ok(), Some(Gap((1 << 63) + 8)));
        assert_eq!(Gap::parse("s7_3_0").map(Gap::position).ok(), Some(StreamPos(7)));
        assert_eq!(Gap::parse(&Gap(5).to_string()).ok(), Some(Gap(5)));
        for text in ["", "t", "t-1", "x1", "7"] {
            assert!(Gap::parse(text).is_err(), "{text}");
        }
    }
}

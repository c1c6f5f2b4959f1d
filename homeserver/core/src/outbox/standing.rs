//! What a destination has shown so far, and what that is worth in the line.

use super::peer::Backoff;

/// From so many failures on all are alike: their waits are the longest by then.
const MAX_RANK: u32 = 15;
/// How soon after a failure a destination that is heard from is tried again, ms; doubled with each such try that fails.
const FIRST_PACE_MS: u64 = 1_000;
/// The longest that becomes, ms.
const LONGEST_PACE_MS: u64 = 60_000;

/// What a destination has shown, the best first. Each kind has places of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Standing {
    /// It took what was sent the last time.
    Well,
    /// It was heard from since it failed, or before anything was sent to it.
    Heard,
    /// It failed the last time, and was well before.
    Lapsed,
    /// Nothing was sent to it yet, and nobody heard of it.
    New,
    /// It never took anything and was never heard from: a user may have made up its name.
    Silent,
}

impl Standing {
    /// All kinds, the best first.
    pub(super) const ALL: [Self; 5] = [Self::Well, Self::Heard, Self::Lapsed, Self::New, Self::Silent];

    /// How many of the kind are sent to at once.
    pub(super) const fn places(self) -> usize {
        match self {
            Self::Well => 64,
            Self::Heard | Self::New => 32,
            Self::Lapsed | Self::Silent => 16,
        }
    }
}

/// What is remembered of a destination over restarts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Past {
    /// Failures in a row.
    pub(super) failures: u32,
    /// It took something once.
    pub(super) was_reached: bool,
}

impl From<&Backoff> for Past {
    fn from(backoff: &Backoff) -> Self {
        Self { failures: backoff.failures, was_reached: backoff.last_success_ms > 0 }
    }
}

impl Past {
    /// Where the destination stands, and its rank among its kind: lower is earlier.
    pub(super) fn standing(self, heard: Heard) -> (Standing, u32) {
        match (self.failures, self.was_reached, heard.lately) {
            (0, true, _) => (Standing::Well, 0),
            // Who speaks but could not be reached, and who never could, stand behind those who come back.
            (_, true, true) => (Standing::Heard, heard.spent.min(MAX_RANK)),
            (_, false, true) => (Standing::Heard, heard.spent.min(MAX_RANK).saturating_add(MAX_RANK)),
            (failures, true, false) => (Standing::Lapsed, failures.min(MAX_RANK)),
            (0, false, false) => (Standing::New, 0),
            (failures, false, false) => (Standing::Silent, failures.min(MAX_RANK)),
        }
    }
}

/// Whether a destination spoke to this server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Heard {
    /// It did since it failed.
    pub(super) lately: bool,
    /// How often it was tried because it spoke, and failed.
    pub(super) spent: u32,
}

impl Heard {
    /// A try has failed; `meanwhile` says whether the destination spoke while it was made.
    pub(super) fn spend(&mut self, meanwhile: bool) {
        if self.lately {
            self.spent = self.spent.saturating_add(1);
        }
        self.lately = meanwhile;
    }

    /// How long after a failure it is tried again when it speaks, ms.
    pub(super) fn pace_ms(self) -> u64 {
        FIRST_PACE_MS.saturating_mul(1 << self.spent.min(20)).min(LONGEST_PACE_MS)
    }
}

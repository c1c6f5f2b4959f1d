//! What the network does to requests.

/// How bad the network is; the default is a good one. All of it is drawn from the network's seed.
///
/// Transactions (`PUT /send`) and other requests are apart, because they fail differently: a transaction is sent again until
/// it is answered, while whoever asks for history or a handshake has to go on without.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weather {
    /// Transactions that never arrive, in a hundred.
    pub lost_percent: u32,
    /// Transactions that arrive and whose answer is lost, in a hundred: their sender sends them again.
    pub unanswered_percent: u32,
    /// Transactions that arrive once more, later and behind newer ones, in a hundred.
    pub doubled_percent: u32,
    /// Other requests that never arrive, in a hundred.
    pub questions_lost_percent: u32,
    /// Each request is under way for up to so many ms: those of different servers overtake each other.
    pub delay_ms: u64,
}

impl Weather {
    /// Everything goes wrong sometimes.
    #[must_use]
    pub fn storm() -> Self {
        Self { lost_percent: 20, unanswered_percent: 15, doubled_percent: 15, questions_lost_percent: 10, delay_ms: 4 }
    }
}

//! What operators read about destinations.

use std::{collections::BTreeSet, num::NonZeroUsize};

use lru::LruCache;
use matron_storage::{KeyRange, KeyReader, Order, Table};
use parking_lot::Mutex;
use ruma::{OwnedServerName, ServerName};
use serde::Serialize;

use crate::{Core, Error};

/// The longest queue that is counted.
const COUNTED: usize = 20_000;
/// How many destinations one report names.
const MAX_PEERS: usize = 2_000;

/// How many destinations are remembered that refused something.
const MAX_REFUSING: NonZeroUsize = NonZeroUsize::MIN.saturating_add(1023);

/// The last event that a destination refused of a transaction that it took.
#[derive(Clone, Debug, Serialize)]
pub struct Refusal {
    /// When, ms.
    pub at_ms: u64,
    /// What it said.
    pub reason: String,
}

/// The last refusals, in memory.
#[derive(Debug)]
pub(super) struct Refusals(Mutex<LruCache<OwnedServerName, Refusal>>);

impl Default for Refusals {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(MAX_REFUSING)))
    }
}

impl Refusals {
    /// The destination refused an event.
    pub(super) fn note(&self, server: &ServerName, at_ms: u64, reason: &str) {
        let reason = reason.chars().filter(|c| !c.is_control()).take(200).collect();
        self.0.lock().put(server.to_owned(), Refusal { at_ms, reason });
    }

    fn of(&self, server: &ServerName) -> Option<Refusal> {
        self.0.lock().peek(server).cloned()
    }
}

/// How it stands with one destination.
#[derive(Clone, Debug, Serialize)]
pub struct PeerReport {
    /// The destination.
    pub server: OwnedServerName,
    /// Whether policy lets this server speak with it.
    pub allowed: bool,
    /// How much waits for it: events, messages to devices, receipts; counted up to 20,000.
    pub queue: usize,
    /// Failures in a row; 0 while all is well.
    pub failures: u32,
    /// When the failures began, ms; 0 while all is well.
    pub failing_since_ms: u64,
    /// Until when it is left alone, ms; `None` if it is not.
    pub waiting_until_ms: Option<u64>,
    /// When it last took something, ms, to a few minutes; 0 for never.
    pub last_success_ms: u64,
    /// Why it failed the last time; empty while all is well.
    pub reason: String,
    /// The last event that it refused since this server started, though it took the transaction.
    pub refused: Option<Refusal>,
}

impl Core {
    /// How it stands with the destination.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn peer_report(&self, server: &ServerName) -> Result<PeerReport, Error> {
        let backoff = self.load_backoff(server)?;
        let waiting = self.outbox.schedule.lock().waits_until_ms(server);
        let now_ms = self.now_ms();
        let kept = (backoff.until_ms > now_ms).then_some(backoff.until_ms);
        Ok(PeerReport {
            server: server.to_owned(),
            allowed: self.peer_allowed(server),
            queue: self.queue_length(server, COUNTED)?,
            failures: backoff.failures,
            failing_since_ms: backoff.failing_since_ms,
            waiting_until_ms: waiting.or(kept).filter(|_| backoff.failures > 0),
            last_success_ms: backoff.last_success_ms,
            reason: backoff.reason,
            refused: self.outbox.refused.of(server),
        })
    }

    /// How it stands with every destination that something was sent to or waits for, by name; bounded.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn peer_reports(&self) -> Result<Vec<PeerReport>, Error> {
        let mut servers = BTreeSet::new();
        for table in [Table::OutboxState, Table::OutboxRow, Table::OutboxReceipt] {
            let mut range = KeyRange::all();
            while servers.len() < MAX_PEERS {
                let page = self.store.scan(table, &range, Order::Ascending, 1)?;
                let Some((key, _)) = page.first() else { break };
                let Some(name) = KeyReader::new(key).text() else { break };
                let Some(end) = matron_storage::Key::new().text(&name).prefix().end else { break };
                range.start = end;
                servers.extend(OwnedServerName::try_from(name).ok());
            }
        }
        servers.iter().map(|server| self.peer_report(server)).collect()
    }
}

//! Keys of other servers: from memory, from the store, and only then from the server itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use matron_room::VerifyKey;
use ruma::ServerName;

use super::{Asked, record::ServerKeys};
use crate::{
    Core, Error,
    ports::{FederationRequest, PeerError, http_method::Method},
};

const FETCH_TIMEOUT: Duration = Duration::from_secs(10);
const MAX_DOCUMENT_BYTES: usize = 128 * 1024;
/// How often a server that answers may be asked within [`BURST_MS`] for what it did not publish.
const MAX_BURST: u32 = 10;
const BURST_MS: u64 = 10_000;
/// What was signed this lately was signed with a key of now, ms.
const PRESENT_MS: u64 = 10 * 60_000;
/// How soon a server that did not answer is asked again, doubling, ms.
const AFTER_FAILURE_MS: u64 = 2_000;
const LONGEST_WAIT_MS: u64 = 5 * 60_000;
/// The keys that are needed of a server, and until when each must be valid at least, ms.
pub(crate) type Wanted = BTreeMap<String, u64>;

/// Beyond so many turns, abandoned ones are swept.
const MAX_TURNS: usize = 1024;

impl Core {
    /// The server's keys of these ids that were valid at `valid_at_ms` (ever, if `None`). Keys that nobody could
    /// give are missing from the answer.
    ///
    /// The server is asked only for what is not known, by one request at a time, and not again shortly after.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn server_keys(
        &self,
        server: &ServerName,
        key_ids: &BTreeSet<String>,
        valid_at_ms: Option<u64>,
    ) -> Result<BTreeMap<String, VerifyKey>, Error> {
        let pick = |known: &ServerKeys| -> BTreeMap<String, VerifyKey> {
            key_ids.iter().filter_map(|id| Some((id.clone(), known.find(id, valid_at_ms)?))).collect()
        };
        if self.is_local(server) {
            return Ok(pick(&*self.own_keys().await?));
        }
        let satisfies = |known: &ServerKeys| pick(known).len() == key_ids.len();
        let wanted = key_ids.iter().map(|key_id| (key_id.clone(), valid_at_ms.unwrap_or(0))).collect();
        let known = self.keys_satisfying(server, &wanted, satisfies).await?;
        Ok(known.map(|known| pick(&known)).unwrap_or_default())
    }

    /// What is known of the server once it satisfies the caller, or once the server, and after it the trusted notaries, had
    /// their chance to. `wanted`: the keys that are needed, and until when they must be valid at least, ms.
    pub(crate) async fn keys_satisfying(
        &self,
        server: &ServerName,
        wanted: &Wanted,
        satisfies: impl Fn(&ServerKeys) -> bool,
    ) -> Result<Option<Arc<ServerKeys>>, Error> {
        let known = self.find_known_keys(server)?;
        let asked_before = self.asked(server);
        if known.as_deref().is_some_and(&satisfies) || !self.may_ask_for_keys(server, asked_before) {
            return Ok(known);
        }
        let turn = {
            let mut in_flight = self.inbound.keys.in_flight.lock();
            if in_flight.len() > MAX_TURNS {
                // What callers left behind who went away while they waited.
                in_flight.retain(|_, turn| Arc::strong_count(turn) > 1);
            }
            Arc::clone(in_flight.entry(server.to_owned()).or_default())
        };
        let held = turn.lock().await;
        // Whoever had the turn before brought what is needed, or learned that it cannot be had.
        let mut known = self.find_known_keys(server)?;
        if self.asked(server).times == asked_before.times {
            known = self.fetch_keys(server, wanted, known, satisfies).await?;
        }
        drop(held);
        // INVARIANT: clones are made only under this lock, so a count of two is the map and us.
        let mut in_flight = self.inbound.keys.in_flight.lock();
        if Arc::strong_count(&turn) <= 2 {
            in_flight.remove(server);
        }
        Ok(known)
    }

    fn asked(&self, server: &ServerName) -> Asked {
        self.inbound.keys.asked.lock().peek(server).copied().unwrap_or_default()
    }

    /// How often in a row the server could not be asked.
    pub(super) fn key_failures(&self, server: &ServerName) -> u32 {
        self.asked(server).failures
    }

    fn may_ask_for_keys(&self, server: &ServerName, asked: Asked) -> bool {
        asked.next_ms <= self.now_ms() && self.settings.federation && self.peer_allowed(server)
    }

    /// Asks the server, and remembers its answer, or that it gave none. Where that is not enough, the notaries are asked: for
    /// what the server no longer tells of its past, or for all if it does not answer.
    async fn fetch_keys(
        &self,
        server: &ServerName,
        wanted: &Wanted,
        known: Option<Arc<ServerKeys>>,
        satisfies: impl Fn(&ServerKeys) -> bool,
    ) -> Result<Option<Arc<ServerKeys>>, Error> {
        let fetched = match self.inbound.keys.fetches.acquire().await {
            Ok(_place) => self.fetch_key_document(server).await,
            Err(_closed) => return Ok(known),
        };
        let reached = fetched.as_ref().map_or_else(FetchError::was_reached, |_| true);
        let asked = self.asked(server).after(reached, self.now_ms());
        self.inbound.keys.asked.lock().put(server.to_owned(), asked);
        let known = match fetched {
            Ok(fetched) => {
                let merged = match &known {
                    Some(known) => fetched.over(known),
                    None => fetched,
                };
                let known = self.remember_keys(server, merged).await?;
                // What signs now, the server itself must publish.
                let past_ms = self.now_ms().saturating_sub(PRESENT_MS);
                let lacks_past =
                    wanted.iter().any(|(key_id, at_ms)| *at_ms < past_ms && known.find(key_id, Some(*at_ms)).is_none());
                if satisfies(&known) || !lacks_past {
                    return Ok(Some(known));
                }
                Some(known)
            }
            Err(error) => {
                tracing::debug!(peer.name = %server, %error, "the server's signing keys could not be fetched");
                known
            }
        };
        match self.fetch_keys_from_notaries(server, wanted).await {
            Some(found) => {
                // What the server itself said weighs more than what others remember.
                let merged = match known {
                    Some(known) => ServerKeys::clone(&known).under(found),
                    None => found,
                };
                Ok(Some(self.remember_keys(server, merged).await?))
            }
            None => Ok(known),
        }
    }

    pub(crate) async fn fetch_key_document(&self, server: &ServerName) -> Result<ServerKeys, FetchError> {
        let request = FederationRequest {
            destination: server.to_owned(),
            method: Method::Get,
            path_and_query: "/_matrix/key/v2/server".to_owned(),
            body: None,
            signed: false,
            timeout: FETCH_TIMEOUT,
            max_bytes: MAX_DOCUMENT_BYTES,
        };
        let response = self.federation.request(request).await?;
        let text = std::str::from_utf8(&response.body).map_err(|_not_text| FetchError::NotText)?;
        let object = matron_room::parse_canonical(text)?;
        Ok(ServerKeys::from_document(server, &object, self.now_ms())?)
    }
}

/// Why a server's keys were not had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    #[error(transparent)]
    Peer(#[from] PeerError),
    #[error("the key document is not text")]
    NotText,
    #[error(transparent)]
    Json(#[from] matron_room::CanonicalError),
    #[error(transparent)]
    Document(#[from] super::record::DocumentError),
}

impl FetchError {
    /// Whether somebody answered, however badly.
    fn was_reached(&self) -> bool {
        !matches!(
            self,
            Self::Peer(PeerError::Resolve(_) | PeerError::Connect(_) | PeerError::Timeout | PeerError::Backoff { .. })
        )
    }
}

impl Asked {
    /// After one more question: who cannot be reached is asked ever more seldom, who answers only so often at a time.
    fn after(self, reached: bool, now_ms: u64) -> Self {
        let times = self.times.saturating_add(1);
        if !reached {
            let wait_ms = AFTER_FAILURE_MS.saturating_mul(1 << self.failures.min(16)).min(LONGEST_WAIT_MS);
            let failures = self.failures.saturating_add(1);
            return Self { times, failures, next_ms: now_ms.saturating_add(wait_ms), ..self };
        }
        let over = self.burst_from_ms.saturating_add(BURST_MS) <= now_ms;
        let (burst, burst_from_ms) =
            if over { (1, now_ms) } else { (self.burst.saturating_add(1), self.burst_from_ms) };
        let next_ms = if burst < MAX_BURST { now_ms } else { burst_from_ms.saturating_add(BURST_MS) };
        Self { times, failures: 0, next_ms, burst, burst_from_ms }
    }
}

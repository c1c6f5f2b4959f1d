//! Events fetched from a peer: parsed, verified, and kept as outliers. Every fetch is bounded.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use matron_policy::ROOM_POLICY_TYPE;
use matron_room::{AuthEvent, Pdu, RoomVersion, UncheckedPdu, check_auth, check_state_independent};
use matron_storage::{Batch, Pending};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use ruma::{EventId, OwnedEventId, OwnedServerName, RoomId, ServerName};
use serde::de::DeserializeOwned;
use serde_json::{Value, value::RawValue};
use tokio::time::Instant;

use super::graph::in_order;
use crate::{
    Core, Error,
    ports::{FederationRequest, PeerError, http_method::Method},
    retention::carries_words,
    rooms::{EventRef, GroupId, Record, Status, StoredEvent, record::Flag},
};

/// How many events one answer may bring.
pub(super) const MAX_EVENTS: usize = 100_000;

/// How many events are unfolded at a time: parsed they are many times as large as they came.
const WINDOW: usize = 4_096;

/// How long keys are fetched for the events of one answer.
const KEYS_TIMEOUT: Duration = Duration::from_secs(60);

/// How many single events are fetched for one received event.
const MAX_SINGLE: usize = 500;

/// The largest answer with state in it, bytes.
pub(super) const MAX_STATE_BYTES: usize = 128 * 1024 * 1024;

/// Answers up to this size are read where they arrive, bytes.
const INLINE_BYTES: usize = 256 * 1024;

/// How many events one blocking thread takes at a time.
const CHUNK: usize = 128;

/// Events by id, and whether their own auth events allow them.
pub(crate) type Judged = HashMap<OwnedEventId, (Pdu, bool)>;

/// Events in the places of their texts.
struct Verified {
    /// `None` for what is dropped.
    events: Vec<Option<Pdu>>,
    /// Whether each server whose keys were not known had its chance to answer.
    all_asked: bool,
}

/// Events that were judged and are on their way to the disk.
struct Outliers {
    judged: Judged,
    pending: Vec<Pending>,
    /// The first of them, for memory.
    newest: Vec<EventRef>,
}

/// Percent-encodes a part of a path.
#[must_use]
pub(crate) fn encode(part: &str) -> String {
    utf8_percent_encode(part, NON_ALPHANUMERIC).to_string()
}

/// What a peer's failure means to whoever waits for it.
pub(crate) fn peer_error(error: PeerError) -> Error {
    match error {
        PeerError::Status { status, body } => Error::PeerAnswer { status, body: Box::new(body) },
        other => Error::Peer(other.to_string().into()),
    }
}

impl Core {
    /// A peer's JSON answer to a signed GET.
    ///
    /// # Errors
    /// [`Error::Peer`], [`Error::PeerAnswer`].
    pub(crate) async fn peer_get<T: DeserializeOwned + Send + 'static>(
        &self,
        server: &ServerName,
        path_and_query: String,
        timeout: Duration,
        max_bytes: usize,
    ) -> Result<T, Error> {
        self.peer_json(server, Method::Get, path_and_query, None, timeout, max_bytes).await
    }

    /// A peer's JSON answer to a signed request.
    ///
    /// # Errors
    /// [`Error::Peer`], [`Error::PeerAnswer`].
    pub(crate) async fn peer_json<T: DeserializeOwned + Send + 'static>(
        &self,
        server: &ServerName,
        method: Method,
        path_and_query: String,
        body: Option<Value>,
        timeout: Duration,
        max_bytes: usize,
    ) -> Result<T, Error> {
        if !self.peer_allowed(server) {
            return Err(Error::forbidden("this server may not speak with that one"));
        }
        let request = FederationRequest {
            destination: server.to_owned(),
            method,
            path_and_query,
            body,
            signed: true,
            timeout: self.next_question(timeout)?,
            max_bytes,
        };
        match self.federation.request(request).await {
            Ok(response) => {
                self.peer_is_back(server);
                parse_answer(response.body).await
            }
            Err(error) => {
                if matches!(error, PeerError::Timeout) {
                    self.let_us_wait(server);
                }
                Err(peer_error(error))
            }
        }
    }

    /// The events of these JSON texts whose format and signatures are right, in their order; the others are dropped.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(crate) async fn verified_events(
        &self,
        version: &'static RoomVersion,
        room: &RoomId,
        events: Vec<Box<RawValue>>,
    ) -> Result<Vec<Pdu>, Error> {
        Ok(self.verify_each(version, room, events).await?.events.into_iter().flatten().collect())
    }

    /// As [`Core::verified_events`], of a state: nothing is dropped for want of time, since a part of a state is another one.
    ///
    /// # Errors
    /// [`Error::Store`]; [`Error::Peer`] when the keys of the events' servers could not be had in time.
    pub(crate) async fn verify_state(
        &self,
        version: &'static RoomVersion,
        room: &RoomId,
        events: Vec<Box<RawValue>>,
    ) -> Result<Vec<Option<Pdu>>, Error> {
        let verified = self.verify_each(version, room, events).await?;
        if !verified.all_asked && verified.events.iter().any(Option::is_none) {
            return Err(Error::Peer("the keys of this room's servers could not be had in time; try again".into()));
        }
        Ok(verified.events)
    }

    /// As [`Core::verified_events`], each in the place of its text; `None` for what is dropped.
    ///
    /// Keys are fetched once per server, for a minute at most; formats and signatures are checked on blocking threads, a
    /// bounded number at once.
    ///
    /// # Errors
    /// [`Error::Store`].
    async fn verify_each(
        &self,
        version: &'static RoomVersion,
        room: &RoomId,
        events: Vec<Box<RawValue>>,
    ) -> Result<Verified, Error> {
        let until = Instant::now() + KEYS_TIMEOUT;
        let mut all_asked = true;
        let mut verified = Vec::with_capacity(events.len().min(MAX_EVENTS));
        let mut events = events.into_iter().take(MAX_EVENTS).peekable();
        while events.peek().is_some() {
            let room_id = room.to_owned();
            let parse = move |raw: Box<RawValue>| {
                UncheckedPdu::parse(&raw, version).ok().filter(|pdu| pdu.room_id() == room_id)
            };
            let window = events.by_ref().take(WINDOW).collect();
            let parsed: Vec<Option<UncheckedPdu>> = in_parallel(window, parse).await?;
            let keys = Arc::new(self.known_keys_for_events(parsed.iter().flatten(), until).await?);
            all_asked &= keys.all_asked;
            let room_id = room.to_owned();
            let verify = move |pdu: Option<UncheckedPdu>| match pdu?.verify(&*keys) {
                Ok(signed) => Some(signed.into_pdu()),
                Err(error) => {
                    tracing::debug!(room.id = %room_id, %error, "an event is dropped");
                    None
                }
            };
            verified.extend(in_parallel(parsed, verify).await?);
        }
        Ok(Verified { events: verified, all_asked })
    }

    /// The single event from a peer, verified; `None` if the peer does not give it.
    ///
    /// # Errors
    /// [`Error::Peer`] if the peer says nothing about it, or cannot now; [`Error::Store`].
    pub(crate) async fn fetch_event(
        &self,
        server: &ServerName,
        version: &'static RoomVersion,
        room: &RoomId,
        id: &EventId,
    ) -> Result<Option<Pdu>, Error> {
        let path = format!("/_matrix/federation/v1/event/{}", encode(id.as_str()));
        let answer: Value = match self.peer_get(server, path, Duration::from_secs(20), 1024 * 1024).await {
            Ok(answer) => answer,
            Err(Error::PeerAnswer { status, .. }) if status < 500 && status != 429 => return Ok(None),
            Err(Error::PeerAnswer { .. }) => return Err(Error::Peer("the other server is busy or ailing".into())),
            Err(error) => return Err(error),
        };
        let events = raw_events(&answer, "pdus");
        Ok(self.verified_events(version, room, events).await?.into_iter().find(|pdu| pdu.event_id() == id))
    }

    /// The events are known, as outliers, in the order of their authority; those that their own auth events do
    /// not allow are kept as rejected. Those whose auth events are unknown are left out: whoever gives an event without
    /// its authority does not decide that it is rejected. Gives what is known now, with those that were known before.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(crate) async fn keep_outliers(self: &Arc<Self>, events: Vec<Pdu>) -> Result<Judged, Error> {
        // INVARIANT: sampled first, so that nothing newer is overwritten in memory.
        let generation = self.rooms.generation();
        // What runs off the workers does not end by itself when its owner goes away, and with it the room's turn.
        let owner = Arc::new(());
        let is_wanted = {
            let owner = Arc::downgrade(&owner);
            move || owner.strong_count() > 0
        };
        let outliers = if events.len() <= CHUNK {
            self.judge_outliers(events, &is_wanted)?
        } else {
            let core = Arc::clone(self);
            off_the_workers(move || core.judge_outliers(events, &is_wanted)).await?
        };
        drop(owner);
        for commit in outliers.pending {
            commit.await?;
        }
        // Whoever asked for them looks at them next.
        for event in outliers.newest {
            self.rooms.cache_event(generation, &event);
        }
        Ok(outliers.judged)
    }

    fn judge_outliers(&self, events: Vec<Pdu>, is_wanted: &impl Fn() -> bool) -> Result<Outliers, Error> {
        const PER_BATCH: usize = 200;
        // More would push out of memory what others need.
        const REMEMBERED: usize = 1_024;
        let mut newest = Vec::new();
        let mut judged = Judged::with_capacity(events.len());
        let mut batch = Batch::new();
        // Not waited for one by one: they share flushes.
        let mut pending = Vec::new();
        let forgetful = self.forgets_words(&events)?;
        for mut pdu in in_order(events, |pdu| pdu.auth_event_ids_with_create()) {
            if let Some(known) = self.load_event(pdu.event_id())? {
                judged.insert(known.id().to_owned(), (known.pdu.clone(), known.is_usable()));
                continue;
            }
            // What was said in passing is not needed to know who is a member.
            if forgetful && carries_words(&pdu) {
                pdu = pdu
                    .without_words()
                    .map_err(|error| Error::internal(format!("an event has no redacted form: {error}")))?;
            }
            let authority = pdu.auth_event_ids_with_create();
            let new: Vec<_> = authority.into_iter().filter(|id| !judged.contains_key(id)).collect();
            if !self.unknown_of(new)?.is_empty() {
                tracing::debug!(event.id = %pdu.event_id(), "an event came without its authority");
                continue;
            }
            let usable = self.check_by_auth_events(&pdu, &judged).is_ok();
            let status = if usable { Status::Outlier } else { Status::Rejected };
            let record = self.outlier_record(&pdu, status);
            self.write_event(&mut batch, &pdu, &record, None)?;
            if newest.len() < REMEMBERED {
                let unrelated = Flag::default();
                newest.push(Arc::new(StoredEvent { pdu: pdu.clone(), record, content_gone: false, unrelated }));
            }
            judged.insert(pdu.event_id().to_owned(), (pdu, usable));
            if batch.ops.len() >= PER_BATCH {
                check_wanted(is_wanted)?;
                pending.push(self.store.submit(std::mem::take(&mut batch)));
            }
        }
        if !batch.is_empty() {
            check_wanted(is_wanted)?;
            pending.push(self.store.submit(batch));
        }
        Ok(Outliers { judged, pending, newest })
    }

    /// Whether the events are of a room whose content dies: as it stands here, or as they say.
    fn forgets_words(&self, events: &[Pdu]) -> Result<bool, Error> {
        let Some(first) = events.first() else { return Ok(false) };
        if events.iter().any(|pdu| ["m.room.retention", ROOM_POLICY_TYPE].iter().any(|kind| pdu.is_state_of(kind, "")))
        {
            return Ok(true);
        }
        let Some(room) = self.find_room(first.room_id())? else { return Ok(false) };
        let mut inner = room.lock();
        Ok(self.room_lifetime_ms(&mut inner)?.is_some())
    }

    fn outlier_record(&self, pdu: &Pdu, status: Status) -> Record {
        let bucket = if pdu.is_state() { 0 } else { crate::retention::WITHOUT_END | (self.now_ms() / 86_400_000) };
        Record {
            status,
            timeline: 0,
            received_ms: self.now_ms(),
            state_before: GroupId::EMPTY,
            bucket,
            expires_ms: 0,
            redacted_by: None,
            version: pdu.room_version(),
        }
    }

    /// The event passes the authorisation rules by its own auth events, found in `beside` or in the store.
    ///
    /// # Errors
    /// The rule that refuses, as a sentence.
    pub(crate) fn check_by_auth_events(&self, pdu: &Pdu, beside: &Judged) -> Result<(), String> {
        let find = |id: &EventId| -> Option<AuthEvent> {
            if let Some((pdu, usable)) = beside.get(id) {
                return Some(if *usable { AuthEvent::Accepted(pdu.clone()) } else { AuthEvent::Rejected });
            }
            let event = self.load_event(id).ok().flatten()?;
            Some(if event.is_usable() { AuthEvent::Accepted(event.pdu.clone()) } else { AuthEvent::Rejected })
        };
        check_state_independent(pdu, find).map_err(|error| error.to_string())?;
        let auth: Vec<Pdu> = pdu
            .auth_event_ids_with_create()
            .iter()
            .filter_map(|id| match find(id) {
                Some(AuthEvent::Accepted(pdu)) => Some(pdu),
                _ => None,
            })
            .collect();
        check_auth(pdu, |kind, key| auth.iter().find(|event| event.is_state_of(kind, key)).cloned())
            .map_err(|error| error.to_string())
    }

    /// Of the event's auth events and their authority, those that are missing are fetched and kept as outliers.
    ///
    /// # Errors
    /// [`Error::Store`]; that a peer does not answer is no error, the event is judged by what is known.
    pub(crate) async fn fetch_missing_auth(self: &Arc<Self>, server: &ServerName, pdu: &Pdu) -> Result<(), Error> {
        let missing = self.unknown_of(pdu.auth_event_ids_with_create())?;
        if missing.is_empty() {
            return Ok(());
        }
        let path = format!(
            "/_matrix/federation/v1/event_auth/{}/{}",
            encode(pdu.room_id().as_str()),
            encode(pdu.event_id().as_str())
        );
        if let Ok(answer) = self.peer_get::<Value>(server, path, Duration::from_secs(30), MAX_STATE_BYTES).await {
            let events = raw_events(&answer, "auth_chain");
            let verified = self.verified_events(pdu.room_version(), pdu.room_id(), events).await?;
            let _known = self.keep_outliers(verified).await?;
        }
        let authority = pdu.auth_event_ids_with_create();
        self.fetch_one_by_one(server, pdu.room_version(), pdu.room_id(), authority).await?;
        Ok(())
    }

    /// The events with these ids, and their authority, are fetched one at a time and kept as outliers, up to a bound; gives
    /// `false` if the peer fell silent, so that of those that are still unknown nothing can be said.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(crate) async fn fetch_one_by_one(
        self: &Arc<Self>,
        server: &ServerName,
        version: &'static RoomVersion,
        room: &RoomId,
        ids: Vec<OwnedEventId>,
    ) -> Result<bool, Error> {
        let mut wanted: BTreeSet<OwnedEventId> = self.unknown_of(ids)?.into_iter().collect();
        let mut asked = BTreeSet::new();
        let mut found = Vec::new();
        let mut answers = true;
        while let Some(id) = wanted.pop_first() {
            if !asked.insert(id.clone()) || asked.len() > MAX_SINGLE {
                continue;
            }
            match self.fetch_event(server, version, room, &id).await {
                Ok(Some(pdu)) => {
                    wanted.extend(self.unknown_of(pdu.auth_event_ids_with_create())?);
                    found.push(pdu);
                }
                Ok(None) => {}
                Err(Error::Peer(_)) => {
                    answers = false;
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        let _known = self.keep_outliers(found).await?;
        Ok(answers)
    }

    /// Of these ids, those of which nothing is known.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(crate) fn unknown_of(&self, ids: impl IntoIterator<Item = OwnedEventId>) -> Result<Vec<OwnedEventId>, Error> {
        let mut unknown = Vec::new();
        for id in ids {
            if self.load_event(&id)?.is_none() {
                unknown.push(id);
            }
        }
        Ok(unknown)
    }

    /// The servers to ask about a room, the given one first; bounded.
    pub(crate) fn servers_to_ask(&self, first: Option<&ServerName>, room: &crate::rooms::Room) -> Vec<OwnedServerName> {
        let mut servers: Vec<OwnedServerName> = first.map(ToOwned::to_owned).into_iter().collect();
        for server in room.servers() {
            if server != self.server_name && !servers.contains(&server) && servers.len() < 5 {
                servers.push(server);
            }
        }
        servers
    }
}

/// What the work gives, which is done where it holds up nobody else.
///
/// # Errors
/// Those of the work.
pub(super) async fn off_the_workers<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let span = tracing::Span::current();
    let done = tokio::task::spawn_blocking(move || span.in_scope(work)).await;
    done.map_err(|_| Error::internal("work on a room's events failed"))?
}

fn check_wanted(is_wanted: &impl Fn() -> bool) -> Result<(), Error> {
    if is_wanted() { Ok(()) } else { Err(Error::internal("nobody waits for these events any more")) }
}

/// The value that an answer holds; large ones are read on a blocking thread.
async fn parse_answer<T: DeserializeOwned + Send + 'static>(body: Bytes) -> Result<T, Error> {
    let small = body.len() <= INLINE_BYTES;
    let parse =
        move || serde_json::from_slice(&body).map_err(|_| Error::Peer("the other server's answer is malformed".into()));
    if small {
        return parse();
    }
    tokio::task::spawn_blocking(parse).await.map_err(|_| Error::internal("reading an answer failed"))?
}

/// Applies the function to each item, in order; many items are shared out among blocking threads.
async fn in_parallel<I, O>(
    items: Vec<I>,
    apply: impl Fn(I) -> O + Clone + Send + Sync + 'static,
) -> Result<Vec<O>, Error>
where
    I: Send + 'static,
    O: Send + 'static,
{
    if items.len() <= CHUNK / 8 {
        return Ok(items.into_iter().map(apply).collect());
    }
    let mut chunks = Vec::with_capacity(items.len().div_ceil(CHUNK));
    let mut items = items.into_iter().peekable();
    while items.peek().is_some() {
        chunks.push(items.by_ref().take(CHUNK).collect::<Vec<I>>());
    }
    let threads = std::thread::available_parallelism().map_or(2, std::num::NonZero::get).clamp(1, 8);
    let done: Vec<_> = stream::iter(chunks)
        .map(|chunk| {
            let apply = apply.clone();
            tokio::task::spawn_blocking(move || chunk.into_iter().map(apply).collect::<Vec<O>>())
        })
        .buffered(threads)
        .collect()
        .await;
    let mut all = Vec::new();
    for chunk in done {
        all.extend(chunk.map_err(|_| Error::internal("checking events failed"))?);
    }
    Ok(all)
}

/// The events under a key of an answer, unparsed.
pub(crate) fn raw_events(answer: &Value, key: &str) -> Vec<Box<RawValue>> {
    let Some(list) = answer.get(key).and_then(Value::as_array) else { return Vec::new() };
    list.iter().take(MAX_EVENTS).filter_map(|event| serde_json::value::to_raw_value(event).ok()).collect()
}

//! An event of ours: drafted, judged by policy, authorised, sealed, committed, told.

use std::{collections::BTreeSet, sync::Arc};

use matron_room::{CreateNonce, DraftPdu, Pdu, SealError, auth_types_for, check_auth};
use matron_storage::{CommitError, Key, Table};
use ruma::{OwnedEventId, OwnedRoomId, OwnedServerName, OwnedUserId};
use serde_json::{Value, value::RawValue};

use super::{
    append::{Append, Appending},
    room::{Inner, Room},
    state_map::{GroupId, StateKey, find_in},
};
use crate::{Core, Error, Requester, governance::Refusal, policy_server::PolicyServer};

/// How often a send is tried anew when another writer was first.
const TRIES: usize = 4;

/// What a user, or Matron itself, wants to send.
#[derive(Clone, Debug)]
pub struct NewEvent {
    /// Where.
    pub room_id: OwnedRoomId,
    /// Who.
    pub sender: OwnedUserId,
    /// The type.
    pub kind: String,
    /// The state key, for state.
    pub state_key: Option<String>,
    /// The content, an object.
    pub content: Value,
    /// What it redacts, for redactions.
    pub redacts: Option<OwnedEventId>,
    /// The transaction that makes trying again harmless.
    pub txn: Option<Txn>,
    /// The time that an application service gives it, ms.
    pub origin_server_ts_ms: Option<u64>,
    /// Servers that must hear of it beside those in the room.
    pub also_to: BTreeSet<OwnedServerName>,
}

/// A client's transaction (Client-Server API, "Transaction identifiers").
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Txn {
    /// The user.
    pub user: OwnedUserId,
    /// The device, or what stands for it.
    pub owner: String,
    /// The endpoint and room that the id belongs to.
    pub scope: String,
    /// The client's id.
    pub id: String,
}

impl Txn {
    /// The transaction of this requester.
    #[must_use]
    pub fn of(requester: &Requester, scope: String, id: String) -> Self {
        Self { user: requester.user_id.clone(), owner: requester.transaction_owner(), scope, id }
    }

    /// Its key in `event_txn`.
    #[must_use]
    pub fn key(&self) -> Vec<u8> {
        Key::new().text(&self.user).text(&self.owner).text(&self.scope).text(&self.id).into()
    }
}

impl NewEvent {
    /// A message-like event.
    #[must_use]
    pub fn message(room_id: OwnedRoomId, sender: OwnedUserId, kind: impl Into<String>, content: Value) -> Self {
        Self {
            room_id,
            sender,
            kind: kind.into(),
            state_key: None,
            content,
            redacts: None,
            txn: None,
            origin_server_ts_ms: None,
            also_to: BTreeSet::new(),
        }
    }

    /// A state event.
    #[must_use]
    pub fn state(
        room_id: OwnedRoomId,
        sender: OwnedUserId,
        kind: impl Into<String>,
        state_key: impl Into<String>,
        content: Value,
    ) -> Self {
        Self { state_key: Some(state_key.into()), ..Self::message(room_id, sender, kind, content) }
    }
}

/// Why a try to send did not end in a commit.
enum Stop {
    /// The sender gets this error.
    Refused(Refusal),
    /// Nothing needs to be sent: this event says it already.
    Already(OwnedEventId),
    /// The room's policy server must recommend this event first; the state before it.
    Ask(Box<Pdu>, Box<PolicyServer>, GroupId),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Refused(error.into())
    }
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl Core {
    /// The event is durable, visible, and on its way to everyone it concerns; the same transaction gives the same id.
    ///
    /// # Errors
    /// [`Error::NotFound`] for an unknown room, [`Error::Forbidden`] by the authorisation rules,
    /// [`Error::PolicyDenied`] or [`Error::PolicyUndetermined`] by policy, [`Error::TooLarge`], [`Error::BadJson`].
    pub async fn send_event(self: &Arc<Self>, new: NewEvent) -> Result<OwnedEventId, Error> {
        check_tombstone(&new)?;
        let txn_key = new.txn.as_ref().map(Txn::key);
        for _ in 0..TRIES {
            if let Some(done) = self.find_txn(txn_key.as_deref())? {
                return Ok(done);
            }
            let room = self.open_room(&new.room_id)?;
            let started = {
                let mut inner = room.lock();
                self.start_send(&room, &mut inner, &new, txn_key.clone())
            };
            let appending = match started {
                Ok(appending) => {
                    // Before anyone can see the event, so that the sender's own sync knows it.
                    if let Some(txn) = &new.txn {
                        self.rooms.sent.lock().put(appending.event_id().to_owned(), txn.clone());
                    }
                    appending
                }
                Err(Stop::Already(event_id)) => return Ok(event_id),
                Err(Stop::Ask(pdu, server, state_before)) => {
                    let pdu = self.ask_to_send(&server, *pdu).await?;
                    return self.send_recommended(&new, pdu, state_before).await;
                }
                Err(Stop::Refused(refusal)) => return Err(refusal.recorded().await),
            };
            if let Some(done) = self.finish_send(appending, txn_key.as_deref()).await? {
                return Ok(done);
            }
            if let Some(key) = txn_key.as_deref()
                && let Some(bytes) = self.store.get(Table::EventTxn, key)?
                && let Some(id) = std::str::from_utf8(&bytes).ok().and_then(|id| OwnedEventId::try_from(id).ok())
            {
                return Ok(id);
            }
        }
        Err(Error::LimitExceeded { retry_after_ms: 500 })
    }

    /// The event has the recommendation that it needed; it is durable and visible if it still may be.
    async fn send_recommended(
        self: &Arc<Self>,
        new: &NewEvent,
        pdu: Pdu,
        state_before: GroupId,
    ) -> Result<OwnedEventId, Error> {
        let txn_key = new.txn.as_ref().map(Txn::key);
        for _ in 0..TRIES {
            if let Some(done) = self.find_txn(txn_key.as_deref())? {
                return Ok(done);
            }
            let room = self.open_room(&new.room_id)?;
            let appended = {
                let mut inner = room.lock();
                self.append_sealed(&room, &mut inner, new, pdu.clone(), GroupId(state_before.0))
            };
            let appending = match appended {
                Ok(appending) => appending,
                Err(refusal) => return Err(refusal.recorded().await),
            };
            if let Some(txn) = &new.txn {
                self.rooms.sent.lock().put(appending.event_id().to_owned(), txn.clone());
            }
            if let Some(done) = self.finish_send(appending, txn_key.as_deref()).await? {
                return Ok(done);
            }
        }
        Err(Error::LimitExceeded { retry_after_ms: 500 })
    }

    /// The event is durable and visible, and its transaction remembered; `None` if it must be tried again.
    async fn finish_send(
        self: &Arc<Self>,
        appending: Appending,
        txn: Option<&[u8]>,
    ) -> Result<Option<OwnedEventId>, Error> {
        match self.finish_append(appending).await {
            Ok(event) => {
                if let Some(key) = txn {
                    self.rooms.txns.lock().put(key.to_vec(), event.id().to_owned());
                }
                Ok(Some(event.id().to_owned()))
            }
            Err(CommitError::Conflict(_)) => {
                self.resume_after_conflict()?;
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn find_txn(&self, key: Option<&[u8]>) -> Result<Option<OwnedEventId>, Error> {
        // A transaction that is not remembered here is caught by the batch's expectation, without a read.
        Ok(key.and_then(|key| self.rooms.txns.lock().get(key).cloned()))
    }

    fn start_send(
        &self,
        room: &Arc<Room>,
        inner: &mut Inner,
        new: &NewEvent,
        txn: Option<Vec<u8>>,
    ) -> Result<Appending, Stop> {
        if inner.broken {
            return Err(Error::LimitExceeded { retry_after_ms: 100 }.into());
        }
        if let Some(same) = self.same_state(inner, new)? {
            return Err(Stop::Already(same));
        }
        let permit = self.permit_local(room, inner, new)?;
        let pdu = self.seal_local(room, inner, new)?;
        self.authorise(inner, &pdu)?;
        let state_before = GroupId(inner.head.group.0);
        let (pdu, server) = self.recommend_own(inner, pdu)?;
        if let Some(server) = server {
            return Err(Stop::Ask(Box::new(pdu), Box::new(server), state_before));
        }
        let after = pdu.state_key().map(|key| {
            let mut after = inner.current.clone();
            after.insert(StateKey::new(pdu.kind(), key), Arc::new(pdu.event_id().to_owned()));
            after
        });
        let mut item = Append::local(pdu, state_before, after);
        item.txn = txn;
        item.also_to.clone_from(&new.also_to);
        permit.write(&mut item.with)?;
        let appending = self.append(room, inner, item)?;
        permit.submitted();
        Ok(appending)
    }

    /// The current state event that says exactly what this one would say.
    fn same_state(&self, inner: &mut Inner, new: &NewEvent) -> Result<Option<OwnedEventId>, Error> {
        let Some(key) = &new.state_key else { return Ok(None) };
        let Some(current) = inner.state_pdu(self, &new.kind, key)? else { return Ok(None) };
        let same = current.sender() == new.sender && !current.is_redacted() && current.content_value() == new.content;
        Ok(same.then(|| current.event_id().to_owned()))
    }

    /// The event, hashed and signed, at the end of the room's graph.
    pub(crate) fn seal_local(&self, room: &Room, inner: &mut Inner, new: &NewEvent) -> Result<Pdu, Error> {
        let draft = self.draft_local(room, inner, new)?;
        draft.seal(room.version(), &self.signing_key, &self.server_name).map_err(seal_error)
    }

    /// The event as a draft: with its place in the graph and its authority, neither hashed nor signed.
    pub(crate) fn draft_local(&self, room: &Room, inner: &mut Inner, new: &NewEvent) -> Result<DraftPdu, Error> {
        let raw =
            RawValue::from_string(new.content.to_string()).map_err(|_| Error::bad_json("the content is not JSON"))?;
        let types = auth_types_for(&new.kind, new.sender.as_str(), new.state_key.as_deref(), &raw, room.version());
        let auth_events = types
            .iter()
            .filter_map(|(kind, key)| find_in(&inner.current, kind, key))
            .map(|id| (**id).to_owned())
            .collect();
        let founds = new.kind == "m.room.create";
        let mut draft = DraftPdu::new(
            (!(founds && room.version().has_hashed_room_id())).then(|| room.id().to_owned()),
            new.sender.clone(),
            new.kind.clone(),
            new.content.clone(),
        );
        draft.state_key.clone_from(&new.state_key);
        draft.redacts.clone_from(&new.redacts);
        draft.prev_events = inner.head.extremities.iter().map(|(id, _)| id.clone()).collect();
        draft.auth_events = auth_events;
        draft.depth = inner
            .head
            .extremities
            .iter()
            .map(|(_, depth)| *depth)
            .max()
            .unwrap_or(0)
            .saturating_add(1)
            .min((1 << 53) - 1);
        draft.origin_server_ts_ms = new.origin_server_ts_ms.unwrap_or_else(|| self.now_ms());
        if founds {
            draft.nonce = Some(CreateNonce::from_random(rand::random()));
        }
        Ok(draft)
    }

    /// The event passes the authorisation rules against the current state.
    pub(crate) fn authorise(&self, inner: &mut Inner, pdu: &Pdu) -> Result<(), Error> {
        let mut auth = Vec::new();
        for (kind, key) in
            auth_types_for(pdu.kind(), pdu.sender().as_str(), pdu.state_key(), pdu.content(), pdu.room_version())
                .into_iter()
                .chain([("m.room.create".to_owned(), String::new())])
        {
            if let Some(event) = inner.state_pdu(self, &kind, &key)? {
                auth.push((kind, key, event));
            }
        }
        check_auth(pdu, |kind, key| {
            auth.iter().find(|(k, s, _)| k == kind && s == key).map(|(_, _, event)| event.clone())
        })
        .map_err(|error| Error::forbidden(error.sentence))
    }
}

/// A room does not lead to itself.
fn check_tombstone(new: &NewEvent) -> Result<(), Error> {
    let replacement = new.content.get("replacement_room").and_then(Value::as_str);
    if new.kind == "m.room.tombstone" && replacement == Some(new.room_id.as_str()) {
        return Err(Error::invalid("a room cannot be its own replacement"));
    }
    Ok(())
}

/// The error that a sender sees for a draft that cannot be sealed.
pub(crate) fn seal_error(error: SealError) -> Error {
    match error {
        SealError::TooLarge { .. } => Error::TooLarge("the event is larger than 65,536 bytes".into()),
        SealError::Format(matron_room::FormatError::TooLong { .. }) => {
            Error::TooLarge("a field of the event is longer than 255 bytes".into())
        }
        SealError::Canonical(error) => Error::bad_json(error.to_string()),
        SealError::Format(error) => Error::bad_json(error.to_string()),
        SealError::NonceMissing | SealError::Number { .. } | SealError::Pdu(_) => Error::internal(error.to_string()),
    }
}

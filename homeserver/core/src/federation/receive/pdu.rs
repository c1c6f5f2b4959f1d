//! One event, through all steps.

use std::{collections::BTreeSet, sync::Arc};

use matron_room::{Pdu, UncheckedPdu};
use matron_storage::{Batch, CommitError};
use ruma::{OwnedEventId, RoomId, ServerName};
use serde_json::value::RawValue;

use super::{run::Answered, state_before::Before};
use crate::{
    Core, Error,
    federation::state_at::NamedState,
    governance::RemoteVerdict,
    rooms::{
        GroupId, Room, StateKey, Status,
        append::{Append, Appending, Place},
        room::Inner,
        state_map::find_in,
    },
};

/// What became of an event from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// It was known already.
    Known,
    /// It was judged so, and is kept.
    Kept(Status),
}

/// An event as it arrived.
pub(super) enum Arrived {
    /// Nothing more is done with it; what its sender is told, if anything.
    Answered(Option<Answered>),
    /// Its signatures are good, and this is its room.
    Verified(Arc<Room>, Pdu),
}

/// An event from outside that is to be judged.
pub(super) struct Outside<'a> {
    pub(super) pdu: &'a Pdu,
    pub(super) before: &'a NamedState,
    /// Whether the room's policy server recommends it, or none is asked.
    pub(super) recommended: bool,
    pub(super) onward: Onward<'a>,
}

/// How an event is received.
#[derive(Clone, Copy, Debug)]
pub(super) struct How {
    /// Whether what comes before it is asked for.
    pub(super) may_fetch_history: bool,
    /// Whether the other servers in the room hear of it from us.
    pub(super) relay: bool,
    /// Whether the graph holds what follows it.
    pub(super) behind: bool,
}

/// What becomes of an event that is appended.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Onward<'a> {
    /// The other servers in the room hear of it from us, but not this one.
    relay_from: Option<&'a ServerName>,
    /// The graph holds what follows it.
    behind: bool,
    /// The ends of the graph that it follows stay ends.
    keeps_ends: bool,
}

/// The graph has no more ends than this.
const MAX_EXTREMITIES: usize = 20;

/// How often an append is tried anew when another writer was first.
const TRIES: usize = 4;

impl Core {
    /// The event's form, its room, its server's standing there and its signatures are good, or its sender has an answer.
    ///
    /// # Errors
    /// [`Error::Store`]; [`Error::BadJson`] for an event without an id.
    pub(super) async fn verify_arrived(
        self: &Arc<Self>,
        origin: &ServerName,
        room_id: &RoomId,
        raw: &RawValue,
    ) -> Result<Arrived, Error> {
        let Some(room) = self.find_room(room_id)?.filter(|room| room.has_server(&self.server_name)) else {
            // It may end the invite or knock of a user of ours.
            let known = self.receive_outside_room(origin, room_id, raw).await?;
            return Ok(Arrived::Answered(known.map(|id| (id, Ok(Received::Known)))));
        };
        let unchecked = UncheckedPdu::parse(raw, room.version()).map_err(|error| Error::bad_json(error.to_string()))?;
        let id = unchecked.event_id().to_owned();
        if let Err(refused) = self.check_server_acl(&room, origin) {
            return Ok(Arrived::Answered(Some((id, Err(refused)))));
        }
        if self.load_event(&id)?.is_some_and(|event| event.record.status != Status::Outlier) {
            return Ok(Arrived::Answered(Some((id, Ok(Received::Known)))));
        }
        if unchecked.room_id() != room_id {
            return Ok(Arrived::Answered(Some((id, Err(Error::bad_json("the event is of another room"))))));
        }
        let keys = self.keys_for_event(&unchecked).await?;
        Ok(match unchecked.verify(&keys) {
            Ok(signed) => Arrived::Verified(room, signed.into_pdu()),
            Err(error) => Arrived::Answered(Some((id, Err(Error::forbidden(error.to_string()))))),
        })
    }

    /// The event takes all steps: it is judged and kept.
    ///
    /// # Errors
    /// [`Error::Store`]; all others say why the event was dropped: its sender is told.
    pub(super) async fn receive_arrived(
        self: &Arc<Self>,
        origin: &ServerName,
        room: &Arc<Room>,
        pdu: Pdu,
    ) -> Result<Received, Error> {
        let turn = self.inbound.room_turn(room.id());
        let held = turn.lock().await;
        let received = self.on_errand(origin, self.receive_verified(origin, room, pdu, true)).await;
        drop(held);
        self.close_a_gap(origin, room.id()).await?;
        received
    }

    /// An event whose signatures were verified is judged and kept. The caller has the room's turn.
    ///
    /// # Errors
    /// [`Error::Peer`] when history before it is missing and nobody gives its state; [`Error::Store`].
    pub(crate) async fn receive_verified(
        self: &Arc<Self>,
        origin: &ServerName,
        room: &Arc<Room>,
        pdu: Pdu,
        may_fetch_history: bool,
    ) -> Result<Received, Error> {
        self.receive_and_relay(origin, room, pdu, may_fetch_history, false).await
    }

    /// As [`Core::receive_verified`]; with `relay`, the other servers in the room hear of it from us, as they do of a
    /// join or leave that came by a handshake.
    ///
    /// # Errors
    /// As [`Core::receive_verified`].
    pub(crate) async fn receive_and_relay(
        self: &Arc<Self>,
        origin: &ServerName,
        room: &Arc<Room>,
        pdu: Pdu,
        may_fetch_history: bool,
        relay: bool,
    ) -> Result<Received, Error> {
        self.receive_as(origin, room, pdu, How { may_fetch_history, relay, behind: false }).await
    }

    /// As [`Core::receive_verified`], in the manner that is told.
    ///
    /// # Errors
    /// As [`Core::receive_verified`].
    pub(super) async fn receive_as(
        self: &Arc<Self>,
        origin: &ServerName,
        room: &Arc<Room>,
        pdu: Pdu,
        how: How,
    ) -> Result<Received, Error> {
        let may_fetch_history = how.may_fetch_history;
        if self.load_event(pdu.event_id())?.is_some_and(|event| event.record.status != Status::Outlier)
            || self.is_of_the_past(room, &pdu)?
        {
            return Ok(Received::Known);
        }
        if may_fetch_history {
            Box::pin(self.fetch_missing_history(origin, room, &pdu, false)).await?;
        }
        // INVARIANT: known before anything is judged: what follows a rejected event builds on the state before it.
        let mut batch = Batch::new();
        let Before { state: before, is_dictated } =
            self.state_before_event(&mut batch, origin, room, &pdu, may_fetch_history).await?;
        // What was fetched for that often holds what the event itself refers to.
        self.fetch_missing_auth(origin, &pdu).await?;
        if !self.unknown_of(pdu.auth_event_ids_with_create())?.is_empty() {
            // Not rejected: whoever brings it with its authority may still be heard.
            return Err(Error::Peer("the authority of this event is missing, and its sender does not give it".into()));
        }
        if let Err(sentence) = self.check_by_auth_events(&pdu, &std::collections::HashMap::new()) {
            return self.keep_rejected(room, &pdu, &sentence, &before, batch).await;
        }
        let mut state_pdus = Vec::new();
        for (kind, key) in matron_room::auth_types_for(
            pdu.kind(),
            pdu.sender().as_str(),
            pdu.state_key(),
            pdu.content(),
            pdu.room_version(),
        )
        .into_iter()
        .chain([("m.room.create".to_owned(), String::new())])
        {
            if let Some(id) = find_in(&before.state, &kind, &key)
                && let Some(event) = self.load_event(id)?.filter(|event| event.is_usable())
            {
                state_pdus.push(event.pdu.clone());
            }
        }
        let by_state = matron_room::check_auth(&pdu, |kind, key| {
            state_pdus.iter().find(|event| event.is_state_of(kind, key)).cloned()
        });
        if let Err(error) = by_state {
            return self.keep_rejected(room, &pdu, &error.sentence, &before, batch).await;
        }
        // INVARIANT: whoever says alone what the state before an event is says nothing of the room's: it is resolved with what
        // was known, or one message with an invented past would lift bans and policy.
        let onward = Onward { relay_from: how.relay.then_some(origin), behind: how.behind, keeps_ends: is_dictated };
        let received = self.append_received(room, pdu.clone(), &before, batch, onward).await?;
        if may_fetch_history && received == Received::Kept(Status::Accepted) {
            self.note_gap(room, &pdu)?;
        }
        Ok(received)
    }

    /// An event that waited for a fact is judged again, and delivered if it may be. The caller has the room's turn.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(crate) async fn receive_held(
        self: &Arc<Self>,
        room: &Arc<Room>,
        event: &crate::rooms::StoredEvent,
        with: Batch,
    ) -> Result<Status, Error> {
        let group = event.record.state_before;
        let before = NamedState { state: self.load_state_group(group)?, group };
        // How the state before it was found is forgotten: what follows the unknown may have been told any.
        let mut onward = Onward::default();
        for prev in event.pdu.prev_events() {
            onward.keeps_ends |= !self.is_in_graph(room.id(), prev)?;
        }
        match self.append_received(room, event.pdu.clone(), &before, with, onward).await? {
            Received::Kept(status) => Ok(status),
            Received::Known => Ok(event.record.status),
        }
    }

    /// Whether the event is in the state before the oldest event that is here: all that is here follows it, so that it is
    /// neither new nor an end of the graph, whoever tells it again.
    fn is_of_the_past(&self, room: &Room, pdu: &Pdu) -> Result<bool, Error> {
        let Some(key) = pdu.state_key() else { return Ok(false) };
        let Some(oldest) = self.oldest_event(room)? else { return Ok(false) };
        let before = self.load_state_group(oldest.record.state_before)?;
        Ok(before.get(&StateKey::new(pdu.kind(), key)).is_some_and(|id| **id == *pdu.event_id()))
    }

    async fn keep_rejected(
        self: &Arc<Self>,
        room: &Arc<Room>,
        pdu: &Pdu,
        sentence: &str,
        before: &NamedState,
        mut batch: Batch,
    ) -> Result<Received, Error> {
        tracing::debug!(room.id = %room.id(), event.id = %pdu.event_id(), reason = %sentence, "an event is rejected");
        // Its content is nobody's to read: the skeleton is enough to refuse what builds on it.
        let skeleton = pdu.skeleton().map_err(|error| Error::internal(error.to_string()))?;
        let record = crate::rooms::Record {
            status: Status::Rejected,
            timeline: 0,
            received_ms: self.now_ms(),
            state_before: before.group,
            bucket: 0,
            expires_ms: 0,
            redacted_by: None,
            version: pdu.room_version(),
        };
        self.write_event(&mut batch, &skeleton, &record, None)?;
        self.commit(batch).await?;
        self.rooms.forget_event(pdu.event_id());
        // It was dealt with as the specification asks: its sender hears of no failure.
        Ok(Received::Kept(Status::Rejected))
    }

    async fn append_received(
        self: &Arc<Self>,
        room: &Arc<Room>,
        pdu: Pdu,
        before: &NamedState,
        with: Batch,
        onward: Onward<'_>,
    ) -> Result<Received, Error> {
        let (pdu, recommended) = self.recommended(room, &pdu).await?;
        for _ in 0..TRIES {
            let room = self.find_room(room.id())?.ok_or_else(|| Error::not_found("this room is not known"))?;
            let (appending, status) = {
                let mut inner = room.lock();
                let from = Outside { pdu: &pdu, before, recommended, onward };
                self.judge_and_append(&room, &mut inner, &from, with.clone())?
            };
            match self.finish_append(appending).await {
                Ok(_) => return Ok(Received::Kept(status)),
                Err(CommitError::Conflict(_)) => self.resume_after_conflict()?,
                Err(error) => return Err(error.into()),
            }
        }
        Err(Error::LimitExceeded { retry_after_ms: 500 })
    }

    pub(super) fn judge_and_append(
        self: &Arc<Self>,
        room: &Arc<Room>,
        inner: &mut Inner,
        from: &Outside<'_>,
        with: Batch,
    ) -> Result<(Appending, Status), Error> {
        let Outside { pdu, before, recommended, onward } = *from;
        let judged = self.judge_remote(room, inner, pdu)?;
        let status = match self.authorise(inner, pdu) {
            // What it lacks may be held too: both are judged again when facts arrive.
            Err(Error::Forbidden(_)) if judged.verdict() == RemoteVerdict::Hold => Status::Held,
            // And what policy refuses is nobody's to read, other servers included.
            Err(Error::Forbidden(_)) if judged.verdict() == RemoteVerdict::Withhold => Status::Withheld,
            Err(Error::Forbidden(sentence)) => {
                tracing::debug!(room.id = %room.id(), event.id = %pdu.event_id(), reason = %sentence, "an event is soft-failed");
                Status::SoftFailed
            }
            Err(error) => return Err(error),
            Ok(()) if !recommended || self.redacts_elsewhere(pdu)? => Status::SoftFailed,
            Ok(()) => match judged.verdict() {
                RemoteVerdict::Permit => Status::Accepted,
                RemoteVerdict::Withhold => Status::Withheld,
                RemoteVerdict::Hold => Status::Held,
            },
        };
        let pdu = &match status {
            Status::Accepted => self.recommend_permitted(inner, pdu)?,
            _ => pdu.clone(),
        };
        let mut item = Append {
            pdu: pdu.clone(),
            status,
            place: match status {
                Status::Accepted if self.inbound.timeline_gaps.has_place(room.id()) && self.follows_gap(pdu)? => {
                    Place::AfterGap
                }
                Status::Accepted => Place::Timeline,
                _ => Place::Graph,
            },
            state_before: before.group,
            current_after: None,
            extremities: None,
            txn: None,
            federate: false,
            also_to: BTreeSet::new(),
            with,
            at_hand: Arc::default(),
        };
        if status == Status::Accepted {
            if onward.behind {
                // What follows it ends the graph already, and its state was weighed there.
                item.extremities = Some(inner.head.extremities.clone());
            } else {
                self.place_in_graph(room, inner, &mut item, before, onward.keeps_ends)?;
            }
            if let Some(from) = onward.relay_from {
                item.also_to.extend(inner.servers.keys().filter(|server| *server != from).cloned());
            }
        }
        judged.write(&mut item.with)?;
        let appending = self.append(room, inner, item)?;
        judged.submitted();
        Ok((appending, status))
    }

    /// Whether the event is a redaction of an event in another room: nothing is redacted by it, and nobody is shown it.
    fn redacts_elsewhere(&self, pdu: &Pdu) -> Result<bool, Error> {
        if pdu.kind() != "m.room.redaction" {
            return Ok(false);
        }
        let Some(target) = pdu.redacts() else { return Ok(false) };
        Ok(self.load_event(&target)?.is_some_and(|target| target.pdu.room_id() != pdu.room_id()))
    }

    /// The ends of the graph and the current state with the event in it; the ends that it follows are none any more, unless
    /// they are kept.
    fn place_in_graph(
        &self,
        room: &Room,
        inner: &Inner,
        item: &mut Append,
        before: &NamedState,
        keeps_ends: bool,
    ) -> Result<(), Error> {
        let pdu = &item.pdu;
        let stays = |end: &OwnedEventId| keeps_ends || !pdu.prev_events().contains(end);
        let left: Vec<_> = inner.head.extremities.iter().filter(|(id, _)| stays(id)).cloned().collect();
        let mut after = before.clone();
        if let Some(key) = pdu.state_key() {
            let key = StateKey::new(pdu.kind(), key);
            let id = Arc::new(pdu.event_id().to_owned());
            after.state.insert(key.clone(), Arc::clone(&id));
            after.group = self.write_state_group(&mut item.with, before.group, &[(key, Some(id))], &after.state)?;
        }
        if left.is_empty() {
            // The event follows everything that is known: its own state is the room's.
            item.current_after = Some(self.without_withheld(inner, after.state)?);
            item.extremities = Some(vec![(pdu.event_id().to_owned(), pdu.depth())]);
            return Ok(());
        }
        let mut states = Vec::with_capacity(left.len() + 1);
        let mut ends = Vec::with_capacity(left.len() + 1);
        for end in left {
            // What is on its way to the disk is an end already.
            let known = self.rooms.under_way(&end.0);
            if let Some(event) = known.map_or_else(|| self.load_event(&end.0), |event| Ok(Some(event)))? {
                states.push(self.state_after(&mut item.with, &event)?);
                ends.push(end);
            }
        }
        states.push(after);
        ends.push((pdu.event_id().to_owned(), pdu.depth()));
        let groups: Vec<_> = states.iter().map(|state| state.group).collect();
        let resolved = self.resolve_states_with(&mut item.with, room.version(), states, Some(pdu))?.state;
        item.current_after = Some(self.without_withheld(inner, resolved)?);
        if ends.len() > MAX_EXTREMITIES {
            ends.remove(superfluous(&groups));
        }
        item.extremities = Some(ends);
        Ok(())
    }
}

/// Which end of the graph can go: the oldest with whose state another ends too, so that nothing of the room's state is lost
/// with it; if there is none, the newest, so that nobody can push others' ends out by adding ends.
fn superfluous(groups: &[GroupId]) -> usize {
    let newest = groups.len().saturating_sub(1);
    groups
        .iter()
        .enumerate()
        .position(|(at, group)| groups.iter().skip(at + 1).any(|other| other == group))
        .unwrap_or(newest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_goes_only_if_its_state_stays() {
        let groups = |names: &[u8]| names.iter().map(|name| GroupId([*name; 16])).collect::<Vec<_>>();
        assert_eq!(superfluous(&groups(&[1, 2, 3, 2])), 1);
        assert_eq!(superfluous(&groups(&[1, 2, 3])), 2);
        assert_eq!(superfluous(&groups(&[1, 1, 1])), 0);
    }
}

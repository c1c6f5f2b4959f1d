//! Messages of one room that follow each other: each is judged by the state after the one before it while that is still on
//! its way to the disk, so that all share a flush. Whatever is not so simple waits for them and takes all steps.

use std::{collections::VecDeque, pin::pin, sync::Arc, task::Poll};

use matron_room::Pdu;
use matron_storage::{Batch, CommitError};
use ruma::{OwnedEventId, RoomId, ServerName};
use serde_json::value::RawValue;
use tokio::sync::OwnedMutexGuard;

use super::{
    Received,
    pdu::{Arrived, Onward, Outside},
};
use crate::{
    Core, Error,
    rooms::{Room, Status, append::Appending},
};

/// What became of an event, for its sender.
pub(super) type Answered = (OwnedEventId, Result<Received, Error>);

/// An event on its way to the disk, as it was judged.
#[derive(Debug)]
struct OnTheWay {
    pdu: Pdu,
    status: Status,
    appending: Appending,
}

/// The events of a room that are on their way to the disk.
#[derive(Debug)]
struct Run {
    core: Arc<Core>,
    events: VecDeque<OnTheWay>,
    /// The room's turn, held as long as there are any.
    turn: Option<OwnedMutexGuard<()>>,
}

impl Drop for Run {
    /// Whoever waits for them may go away, as a peer does that hangs up: they are told of all the same, in their order.
    fn drop(&mut self) {
        let events = std::mem::take(&mut self.events);
        if let (false, Ok(runtime)) = (events.is_empty(), tokio::runtime::Handle::try_current()) {
            let (core, turn) = (Arc::clone(&self.core), self.turn.take());
            runtime.spawn(async move {
                for event in events {
                    if let Err(error) = core.finish_append(event.appending).await {
                        tracing::debug!(%error, "an event from a peer that hung up is not kept");
                    }
                }
                drop(turn);
            });
        }
    }
}

impl Core {
    /// The events of one room are judged and kept, in their order; dropped ones are left out.
    ///
    /// # Errors
    /// [`Error::Store`]; what is on its way then is finished all the same.
    pub(super) async fn receive_run(
        self: &Arc<Self>,
        origin: &ServerName,
        room_id: &RoomId,
        pdus: Vec<Box<RawValue>>,
    ) -> Result<Vec<Answered>, Error> {
        let mut answered = Vec::with_capacity(pdus.len());
        let mut run = Run { core: Arc::clone(self), events: VecDeque::new(), turn: None };
        for raw in pdus {
            let arrived = {
                let mut arriving = pin!(self.verify_arrived(origin, room_id, &raw));
                // INVARIANT: nothing on its way waits for another server.
                match std::future::poll_fn(|context| Poll::Ready(arriving.as_mut().poll(context))).await {
                    Poll::Ready(arrived) => arrived,
                    Poll::Pending => {
                        self.settle(&mut run, origin, room_id, &mut answered).await?;
                        arriving.await
                    }
                }
            };
            let (room, pdu) = match arrived {
                Ok(Arrived::Verified(room, pdu)) => (room, pdu),
                Ok(Arrived::Answered(answer)) => {
                    answered.extend(answer);
                    continue;
                }
                Err(error @ Error::Store(_)) => return Err(error),
                Err(error) => {
                    tracing::debug!(room.id = %room_id, peer.name = %origin, %error, "an event is dropped");
                    continue;
                }
            };
            if self.join_run(&mut run, &room, &pdu).await? {
                continue;
            }
            self.settle(&mut run, origin, room_id, &mut answered).await?;
            self.receive_apart(origin, &room, pdu, &mut answered).await?;
        }
        self.settle(&mut run, origin, room_id, &mut answered).await?;
        Ok(answered)
    }

    /// Puts a plain message that follows all that is known of the room on its way; `false` if it must take all steps.
    async fn join_run(self: &Arc<Self>, run: &mut Run, room: &Arc<Room>, pdu: &Pdu) -> Result<bool, Error> {
        if pdu.is_state() || pdu.kind() == "m.room.redaction" {
            return Ok(false);
        }
        if run.turn.is_none() {
            run.turn = Some(self.inbound.room_turn(room.id()).lock_owned().await);
            // Another peer may have brought it while this one waited.
            if self.load_event(pdu.event_id())?.is_some() {
                return Ok(false);
            }
        }
        let Some((status, appending)) = self.append_in_line(room, pdu)? else { return Ok(false) };
        run.events.push_back(OnTheWay { pdu: pdu.clone(), status, appending });
        Ok(true)
    }

    /// The message, which is not known yet, is on its way, if it follows the one end of the room's graph and everything
    /// permits it.
    fn append_in_line(self: &Arc<Self>, room: &Arc<Room>, pdu: &Pdu) -> Result<Option<(Status, Appending)>, Error> {
        let mut inner = room.lock();
        let ([(end, _)], [prev]) = (&*inner.head.extremities, pdu.prev_events()) else { return Ok(None) };
        if inner.broken || prev != end || self.rooms.under_way(pdu.event_id()).is_some() {
            return Ok(None);
        }
        let end = self.rooms.under_way(end).map_or_else(|| self.load_event(end), |event| Ok(Some(event)))?;
        let Some(end) = end.filter(|end| end.record.status == Status::Accepted && end.pdu.room_id() == room.id())
        else {
            return Ok(None);
        };
        let mut batch = Batch::new();
        let before = self.state_after(&mut batch, &end)?;
        // INVARIANT: the state before it is the room's current one, so that one check is both.
        if (before.group.0 != inner.head.group.0 && before.state != inner.current)
            || self.policy_server_in(&mut inner)?.is_some()
            || !self.unknown_of(pdu.auth_event_ids_with_create())?.is_empty()
            || self.check_by_auth_events(pdu, &std::collections::HashMap::new()).is_err()
        {
            return Ok(None);
        }
        match self.authorise(&mut inner, pdu) {
            Ok(()) => {}
            Err(error @ Error::Store(_)) => return Err(error),
            Err(_) => return Ok(None),
        }
        let from = Outside { pdu, before: &before, recommended: true, onward: Onward::default() };
        let (appending, status) = self.judge_and_append(room, &mut inner, &from, batch)?;
        Ok(Some((status, appending)))
    }

    /// Everything on the way is durable and told, or was judged again after another writer came first.
    async fn settle(
        self: &Arc<Self>,
        run: &mut Run,
        origin: &ServerName,
        room_id: &RoomId,
        answered: &mut Vec<Answered>,
    ) -> Result<(), Error> {
        let mut again = Vec::new();
        let mut failed = None;
        let any = !run.events.is_empty();
        // INVARIANT: each is finished, whatever became of those before it.
        while let Some(OnTheWay { pdu, status, appending }) = run.events.pop_front() {
            match self.finish_append(appending).await {
                Ok(_) => answered.push((pdu.event_id().to_owned(), Ok(Received::Kept(status)))),
                Err(CommitError::Conflict(_)) => again.push(pdu),
                Err(error) => failed = Some(error),
            }
        }
        run.turn = None;
        if let Some(error) = failed {
            return Err(error.into());
        }
        if !again.is_empty() {
            self.resume_after_conflict()?;
        }
        for pdu in again {
            let room = self.open_room(room_id)?;
            self.receive_apart(origin, &room, pdu, answered).await?;
        }
        if any { self.close_a_gap(origin, room_id).await } else { Ok(()) }
    }

    /// One event takes all steps.
    async fn receive_apart(
        self: &Arc<Self>,
        origin: &ServerName,
        room: &Arc<Room>,
        pdu: Pdu,
        answered: &mut Vec<Answered>,
    ) -> Result<(), Error> {
        let id = pdu.event_id().to_owned();
        match self.receive_arrived(origin, room, pdu).await {
            Err(error @ Error::Store(_)) => Err(error),
            received => {
                answered.push((id, received));
                Ok(())
            }
        }
    }
}

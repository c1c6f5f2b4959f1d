//! One event becomes one batch: the only place that writes rooms.
//!
//! [`Core::append`] runs under the room's pen and never waits: it builds the batch, hands it to the
//! committer and moves the room in memory forward, so that the next event can follow at once and both share a
//! flush. [`Core::finish_append`] waits for the commit and publishes. If the commit fails, the room is marked
//! broken and opened anew: each batch expects the head that the one before wrote, so none that built on the
//! failed one can succeed. A room's first events are staged one after another and share one batch.

use std::{
    collections::BTreeSet,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::future::BoxFuture;
use matron_room::{Membership, Pdu};
use matron_storage::{Batch, CommitError, Committed, Key, Pending, SlotForm, StoreError, StreamPos, Table};
use ruma::{OwnedServerName, OwnedUserId};
use serde::Deserialize;
use tracing::Instrument as _;

use super::{
    changes::ChangeGuard,
    members::UserRoom,
    record::{EventRef, Flag, Record, Status, StoredEvent, TIMELINE_OFFSET},
    room::{GroupHex, Head, Inner, Room},
    state_map::{GroupId, StateKey, StateMap, difference},
};
use crate::{
    Core, Error,
    federation::gaps::{ROOM_FOR_HISTORY, marks_of},
    house::to_json,
};

/// More forward extremities than this are cut: the oldest go.
const MAX_EXTREMITIES: usize = 20;

/// Where an event goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// At the end of the timeline.
    Timeline,
    /// At the end of the timeline, behind a gap: history before it is missing here.
    AfterGap,
    /// Before everything that the timeline holds: history fetched from a peer.
    Backfill,
    /// In a gap: history fetched from a peer.
    Gap {
        /// Its order in the timeline, which is free.
        order: u64,
        /// The state after it.
        group_after: GroupId,
    },
    /// Into the graph only.
    Graph,
}

/// An event, judged, and where it goes.
#[derive(Debug)]
pub struct Append {
    /// The event.
    pub pdu: Pdu,
    /// What was judged of it.
    pub status: Status,
    /// Where it goes.
    pub place: Place,
    /// The state before it.
    pub state_before: GroupId,
    /// The room's current state after it; `None`: unchanged.
    pub current_after: Option<StateMap>,
    /// The graph ends here afterwards; `None`: the event takes the place of those it refers to (accepted
    /// timeline events), or nothing changes (all others).
    pub extremities: Option<Vec<(ruma::OwnedEventId, u64)>>,
    /// The transaction that made it: key of `event_txn`.
    pub txn: Option<Vec<u8>>,
    /// Whether it is sent to the servers in the room.
    pub federate: bool,
    /// Servers that must hear of it beside those in the room.
    pub also_to: BTreeSet<OwnedServerName>,
    /// What must be committed with it: audit entries, edges, other events.
    pub with: Batch,
}

impl Append {
    /// An accepted event of ours at the end of the timeline.
    #[must_use]
    pub fn local(pdu: Pdu, state_before: GroupId, current_after: Option<StateMap>) -> Self {
        Self {
            pdu,
            status: Status::Accepted,
            place: Place::Timeline,
            state_before,
            current_after,
            extremities: None,
            txn: None,
            federate: true,
            also_to: BTreeSet::new(),
            with: Batch::new(),
        }
    }
}

impl Append {
    /// An event of the past, accepted, that changes nothing of what is.
    #[must_use]
    pub fn history(pdu: Pdu, state_before: GroupId, with: Batch) -> Self {
        Self { place: Place::Backfill, federate: false, with, ..Self::local(pdu, state_before, None) }
    }
}

/// An event on its way to the disk; must go to [`Core::finish_append`].
#[derive(Debug)]
#[must_use = "an append is only acknowledged by finish_append"]
pub struct Appending {
    pending: Pending,
    staged: Staged,
    guard: ChangeGuard,
}

/// Events that share one commit; must go to [`Core::finish_together`].
#[derive(Debug)]
#[must_use = "an append is only acknowledged by finish_together"]
pub struct AppendingTogether {
    pending: Pending,
    staged: Vec<Staged>,
    guards: Vec<ChangeGuard>,
}

/// An event behind which the room in memory stands, and what follows from it once it is committed.
#[derive(Debug)]
pub(crate) struct Staged {
    room: Arc<Room>,
    event: EventRef,
    under_way: super::UnderWay,
    form: Option<SlotForm>,
    position_index: u32,
    /// Users whose membership changed.
    affected: Vec<OwnedUserId>,
    joined: imbl::OrdSet<OwnedUserId>,
    destinations: BTreeSet<OwnedServerName>,
    stale: Vec<ruma::OwnedEventId>,
    /// The power levels and size of the room, for push rules.
    context: crate::push::RoomContext,
    /// Whether history before it is missing here.
    after_gap: bool,
}

impl Appending {
    /// The id of the event on its way.
    pub(crate) fn event_id(&self) -> &ruma::EventId {
        self.staged.event.id()
    }
}

#[derive(Deserialize)]
struct Relates {
    #[serde(rename = "m.relates_to")]
    relates_to: Option<Relation>,
}

/// An event's relation to another (Client-Server API, "Forming relationships between events").
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct Relation {
    /// What kind of relation.
    pub rel_type: Option<String>,
    /// The other event.
    pub event_id: Option<ruma::OwnedEventId>,
    /// The reaction, for annotations.
    pub key: Option<String>,
}

/// The relation that the event's content states, if any.
#[must_use]
pub fn relation_of(pdu: &Pdu) -> Option<Relation> {
    if !pdu.content_str().contains("m.relates_to") {
        return None;
    }
    pdu.content_as::<Relates>().ok()?.relates_to
}

impl Core {
    /// The event is on its way to the disk, and the room in memory stands behind it.
    ///
    /// # Errors
    /// [`Error::Store`] when something it needs cannot be read; nothing has changed then.
    pub(crate) fn append(&self, room: &Arc<Room>, inner: &mut Inner, item: Append) -> Result<Appending, Error> {
        let (batch, staged) = self.stage(room, inner, item)?;
        // INVARIANT: announced before it is submitted, so that no sync steps over it.
        let guard = self.rooms.changes.begin(room.id(), &staged.affected);
        Ok(Appending { pending: self.store.submit(batch), staged, guard })
    }

    /// The staged events, in their order, are on their way to the disk: all of them or none.
    ///
    /// # Errors
    /// [`Error::Internal`] if their batches contradict each other, which those of one room never do.
    pub(crate) fn submit_together(&self, room: &Room, items: Vec<(Batch, Staged)>) -> Result<AppendingTogether, Error> {
        let mut whole = Batch::new();
        let mut all = Vec::with_capacity(items.len());
        let mut guards = Vec::with_capacity(items.len());
        for (batch, mut staged) in items {
            let moved = whole.then(batch).map_err(|clash| Error::internal(clash.to_string()))?;
            staged.position_index = staged.position_index.saturating_add(moved);
            guards.push(self.rooms.changes.begin(room.id(), &staged.affected));
            all.push(staged);
        }
        Ok(AppendingTogether { pending: self.store.submit(whole), staged: all, guards })
    }

    /// The event's batch; the room in memory stands behind it already, so that the next can build on it.
    ///
    /// # Errors
    /// [`Error::Store`] when something it needs cannot be read.
    pub(crate) fn stage(&self, room: &Arc<Room>, inner: &mut Inner, item: Append) -> Result<(Batch, Staged), Error> {
        let now_ms = self.now_ms();
        let Append { pdu, status, place, state_before, current_after, extremities, txn, federate, also_to, with } =
            item;
        let mut batch = with;
        if place == Place::AfterGap {
            batch.positions = batch.positions.saturating_add(ROOM_FOR_HISTORY);
        }
        let position_index = batch.reserve_position();
        let form = match place {
            Place::Timeline | Place::AfterGap => Some(SlotForm::Timeline),
            Place::Backfill => Some(SlotForm::Backfill),
            Place::Gap { .. } | Place::Graph => None,
        };

        // The state after.
        let changes = current_after.as_ref().map(|after| difference(&inner.current, after)).unwrap_or_default();
        let mut group_after = GroupId(inner.head.group.0);
        if let (Some(after), false) = (&current_after, changes.is_empty()) {
            group_after = self.write_state_group(&mut batch, group_after, &changes, after)?;
        }
        let mut affected = Vec::new();
        let mut left_servers = BTreeSet::new();
        let servers_before: BTreeSet<OwnedServerName> = inner.servers.keys().cloned().collect();
        for (key, id) in changes.iter().filter(|(key, _)| &*key.kind == "m.room.member") {
            let Ok(user) = OwnedUserId::try_from(&*key.key) else { continue };
            let member = match id {
                Some(id) if **id == *pdu.event_id() => Some(pdu.clone()),
                Some(id) => self.load_event(id)?.map(|event| event.pdu.clone()),
                None => None,
            };
            let membership = member.as_ref().and_then(Pdu::membership_state).unwrap_or(Membership::Leave);
            let standing = UserRoom {
                position: StreamPos(0),
                membership,
                event_id: member.as_ref().map(|member| member.event_id().to_owned()),
                sender: member.as_ref().map(|member| member.sender().to_owned()),
                forgotten: false,
            };
            self.write_standing(&mut batch, room.id(), &user, &standing, position_index)?;
            if user.server_name() != self.server_name {
                left_servers.insert(user.server_name().to_owned());
            }
            inner.set_joined(&user, membership == Membership::Join);
            affected.push(user);
        }

        // The event itself; the content of one whose redaction came before it is never written.
        let redacted_by = match status {
            Status::Accepted => self.redaction_that_waits(inner, &pdu)?,
            _ => None,
        };
        let pdu = match &redacted_by {
            Some(_) => {
                pdu.skeleton().map_err(|error| Error::internal(format!("an event has no redacted form: {error}")))?
            }
            None => pdu,
        };
        let (bucket, expires_ms) = if redacted_by.is_some() { (0, 0) } else { self.life_of(inner, &pdu, now_ms)? };
        let record = Record {
            status,
            timeline: if let Place::Gap { order, .. } = place { order } else { 0 },
            received_ms: now_ms,
            state_before,
            bucket,
            expires_ms,
            redacted_by,
            version: pdu.room_version(),
        };
        self.write_event(&mut batch, &pdu, &record, form.map(|form| (position_index, form)))?;
        if let Some(form) = form {
            let (key, slot) = Key::new().text(room.id()).position(position_index, form);
            let mut value = pdu.event_id().as_bytes().to_vec();
            value.push(0);
            value.extend_from_slice(&group_after.0);
            batch.put_at(Table::RoomTimeline, key, Some(slot), value, None);
        }
        if let Place::Gap { order, group_after } = place {
            let mut value = pdu.event_id().as_bytes().to_vec();
            value.push(0);
            value.extend_from_slice(&group_after.0);
            batch.put(Table::RoomTimeline, Key::new().text(room.id()).number(order), value);
        }
        if place == Place::AfterGap {
            let (key, slot) = marks_of(room.id()).position(position_index, SlotForm::Timeline);
            batch.put_at(Table::Misc, key, Some(slot), pdu.event_id().as_bytes().to_vec(), None);
        }
        let mut stale = Vec::new();
        if status == Status::Accepted {
            if let Some(relation) = relation_of(&pdu) {
                self.write_relation(&mut batch, &pdu, &relation, position_index)?;
            }
            if pdu.kind() == "m.room.redaction" {
                stale.extend(self.apply_redaction(&mut batch, inner, &pdu)?);
            }
        }
        // What is not shown dies on time too.
        self.write_expiry(&mut batch, &pdu, &record);

        // The end of the graph.
        let extremities = extremities.or_else(|| {
            (matches!(place, Place::Timeline | Place::AfterGap) && status == Status::Accepted).then(|| {
                let mut ends = inner.head.extremities.clone();
                ends.retain(|(id, _)| !pdu.prev_events().contains(id));
                ends.push((pdu.event_id().to_owned(), pdu.depth()));
                let surplus = ends.len().saturating_sub(MAX_EXTREMITIES);
                ends.drain(..surplus);
                ends
            })
        });
        let head = Head {
            extremities: extremities.unwrap_or_else(|| inner.head.extremities.clone()),
            group: GroupHex(group_after.0),
        };
        let head_bytes = to_json(&head)?;
        if Some(&head_bytes) != inner.head_bytes.as_ref() {
            let key = Key::new().text(room.id());
            match &inner.head_bytes {
                Some(before) => batch.expect_equals(Table::RoomExtremity, key.clone(), before.clone()),
                None => {
                    let meta = super::room::RoomMeta { version: room.version().as_str().to_owned() };
                    batch.put(Table::RoomMeta, key.clone(), to_json(&meta)?);
                    batch.expect_absent(Table::RoomExtremity, key.clone())
                }
            };
            batch.put(Table::RoomExtremity, key, head_bytes.clone());
        }
        if let Some(txn) = txn {
            batch.expect_absent(Table::EventTxn, txn.clone());
            batch.put(Table::EventTxn, txn, pdu.event_id().as_bytes());
        }

        // Who must hear of it.
        let mut destinations = also_to;
        if federate {
            destinations.extend(servers_before);
            destinations.extend(inner.servers.keys().cloned());
            if pdu.membership().is_some_and(|membership| membership != "invite") {
                destinations.extend(left_servers);
            }
        }
        destinations.remove(&self.server_name);
        for destination in &destinations {
            self.write_outbox_event(&mut batch, destination, pdu.event_id(), position_index)?;
        }

        let event = Arc::new(StoredEvent { pdu: pdu.clone(), record, content_gone: false, unrelated: Flag::default() });
        let under_way = self.rooms.set_out(Arc::clone(&event));
        inner.head = head;
        inner.head_bytes = Some(head_bytes);
        if let Some(after) = current_after {
            if changes.iter().any(|(key, _)| matters_beyond_membership(key)) {
                inner.set_current(after);
            } else {
                inner.current = after;
            }
        }
        for id in &stale {
            inner.drop_pdu(id);
        }
        if pdu.is_state() && status == Status::Accepted {
            inner.keep_pdu(pdu.clone());
        }
        let context = self.push_context(inner)?;
        let staged = Staged {
            room: Arc::clone(room),
            event,
            under_way,
            form: form.filter(|_| status == Status::Accepted),
            position_index,
            affected,
            joined: inner.joined.clone(),
            destinations,
            stale,
            context,
            after_gap: place == Place::AfterGap,
        };
        Ok((batch, staged))
    }

    /// The event is durable and visible, and everyone who waits for it has been woken.
    ///
    /// # Errors
    /// [`CommitError`]: the room is opened anew at its next use. On [`CommitError::Conflict`] another writer,
    /// or another try of the same transaction, was first.
    pub(crate) async fn finish_append(self: &Arc<Self>, appending: Appending) -> Result<EventRef, CommitError> {
        // INVARIANT: this ends even if whoever waits for it goes away, as a client does that hangs up: the event will be on
        // disk, and syncs that were not told of it would step over it.
        Finishing(Some(Box::pin(Arc::clone(self).finish(appending).in_current_span()))).await
    }

    async fn finish(self: Arc<Self>, appending: Appending) -> Result<EventRef, CommitError> {
        let Appending { pending, staged, guard } = appending;
        match pending.await {
            Ok(committed) => Ok(self.publish(staged, guard, committed).await),
            Err(error) => {
                self.take_back(&staged);
                Err(error)
            }
        }
    }

    /// All the events are durable and visible, and everyone who waits for them has been woken.
    ///
    /// # Errors
    /// As [`Core::finish_append`]; none of them is durable then.
    pub(crate) async fn finish_together(self: &Arc<Self>, appending: AppendingTogether) -> Result<(), CommitError> {
        let AppendingTogether { pending, staged, guards } = appending;
        let committed = match pending.await {
            Ok(committed) => committed,
            Err(error) => {
                staged.iter().for_each(|staged| self.take_back(staged));
                return Err(error);
            }
        };
        for (staged, guard) in staged.into_iter().zip(guards) {
            self.publish(staged, guard, committed).await;
        }
        Ok(())
    }

    /// Memory forgets what was not committed: the room is opened anew at its next use.
    fn take_back(&self, staged: &Staged) {
        staged.room.lock().broken = true;
        self.rooms.close(staged.room.id());
        for user in &staged.affected {
            self.rooms.forget_user(user);
        }
    }

    /// What follows from a commit: caches, syncs, push, application services, other servers.
    async fn publish(self: &Arc<Self>, staged: Staged, guard: ChangeGuard, committed: Committed) -> EventRef {
        let Staged {
            room,
            event,
            under_way,
            form,
            position_index,
            affected,
            joined,
            destinations,
            stale,
            context,
            after_gap,
        } = staged;
        let position = committed.position(position_index);
        let mut event = StoredEvent::clone(&event);
        event.record.timeline = match form {
            Some(SlotForm::Timeline) => (1 << 63) | position.0,
            Some(SlotForm::Backfill) => (1_u64 << 63).saturating_sub(position.0),
            Some(SlotForm::Plain) | None => event.record.timeline,
        };
        if after_gap {
            self.inbound.timeline_gaps.note(room.id(), event.record.timeline, event.id().to_owned());
        }
        let event = Arc::new(event);
        for id in stale.iter().map(|id| &**id).chain([event.id()]) {
            self.rooms.forget_event(id);
        }
        if let Some(target) = relation_of(&event.pdu).and_then(|relation| relation.event_id) {
            self.rooms.forget_unrelated(&target);
        }
        self.rooms.cache_event(self.rooms.generation(), &event);
        drop(under_way);
        for user in &affected {
            self.rooms.forget_user(user);
        }
        guard.publish(committed.last());
        if !stale.is_empty() {
            // What was redacted may be waiting for its purge.
            self.wake_retention();
        }
        self.bind_files(&event).await;

        if form == Some(SlotForm::Timeline) {
            self.push_event(&crate::push::NewEvent {
                event: Arc::clone(&event),
                position,
                joined: joined.clone(),
                affected: affected.clone(),
                context,
            })
            .await;
            self.appservices_interested(&event, &joined);
        }
        self.attach_media_of(&event).await;
        self.notifier.wake_users(
            joined.iter().chain(affected.iter()).filter(|user| self.is_local_user(user)).map(|user| &**user),
        );
        if !affected.is_empty() {
            self.membership_changed(&room, &affected).await;
        }
        for destination in &destinations {
            self.wake_outbox(destination);
        }
        event
    }

    /// Adds the event's rows: the whole event if it is state, else its skeleton and the sealed whole.
    pub(crate) fn write_event(
        &self,
        batch: &mut Batch,
        pdu: &Pdu,
        record: &Record,
        timeline: Option<(u32, SlotForm)>,
    ) -> Result<(), Error> {
        let slot = timeline.map(|(index, form)| matron_storage::Slot { offset: TIMELINE_OFFSET, index, form });
        let key = pdu.event_id().as_bytes().to_vec();
        if record.bucket == 0 {
            batch.put_at(Table::EventPdu, key, None, record.encode(pdu.json().get()), slot);
            return Ok(());
        }
        let skeleton =
            pdu.skeleton().map_err(|error| Error::internal(format!("an event has no redacted form: {error}")))?;
        let sealed = self
            .keyring
            .seal(pdu.room_id().as_str(), record.bucket, pdu.event_id().as_bytes(), pdu.json().get().as_bytes())
            .map_err(|error| Error::internal(format!("content cannot be sealed: {error}")))?;
        batch.put_at(Table::EventPdu, key.clone(), None, record.encode(skeleton.json().get()), slot);
        batch.put(Table::EventContent, key, sealed);
        Ok(())
    }

    /// Adds a user's standing in a room to both indexes; its position is filled at commit.
    pub(crate) fn write_standing(
        &self,
        batch: &mut Batch,
        room: &ruma::RoomId,
        user: &ruma::UserId,
        standing: &UserRoom,
        position_index: u32,
    ) -> Result<(), Error> {
        let slot = matron_storage::Slot { offset: 0, index: position_index, form: SlotForm::Plain };
        let value = standing.encode()?;
        batch.put_at(Table::RoomUser, Key::new().text(room).text(user), None, value.clone(), Some(slot));
        batch.put_at(Table::UserRoom, Key::new().text(user).text(room), None, value, Some(slot));
        Ok(())
    }

    fn write_relation(&self, batch: &mut Batch, pdu: &Pdu, relation: &Relation, index: u32) -> Result<(), Error> {
        let Some(target) = &relation.event_id else { return Ok(()) };
        let (key, slot) = Key::new().text(pdu.room_id()).text(target).position(index, SlotForm::Timeline);
        let row = RelationRow {
            rel_type: relation.rel_type.clone().unwrap_or_default(),
            kind: pdu.kind().to_owned(),
            event_id: pdu.event_id().to_owned(),
            sender: pdu.sender().to_owned(),
            key: relation.key.clone(),
        };
        batch.put_at(Table::RoomRelation, key, Some(slot), to_json(&row)?, None);
        if relation.rel_type.as_deref() == Some("m.thread") {
            let slot = matron_storage::Slot { offset: 0, index, form: SlotForm::Plain };
            let mut value = vec![0; 8];
            value.extend_from_slice(pdu.event_id().as_bytes());
            batch.put_at(Table::RoomThread, Key::new().text(pdu.room_id()).text(target), None, value, Some(slot));
        }
        Ok(())
    }
}

/// A row of `room_relation`.
#[derive(Clone, Debug, serde::Serialize, Deserialize)]
pub struct RelationRow {
    /// `m.annotation`, `m.replace`, `m.thread`, `m.reference`; empty for a rich reply.
    pub rel_type: String,
    /// The related event's type.
    pub kind: String,
    /// The related event.
    pub event_id: ruma::OwnedEventId,
    /// Its sender.
    pub sender: OwnedUserId,
    /// The reaction, for annotations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

fn matters_beyond_membership(key: &StateKey) -> bool {
    &*key.kind != "m.room.member"
}

/// Work that its owner does, and a task of its own once the owner is gone. Not a task from the start: the sender's answer
/// would come after everyone else's sync, and matrix-js-sdk loses such an answer when the event is in a thread.
struct Finishing(Option<BoxFuture<'static, Result<EventRef, CommitError>>>);

impl Future for Finishing {
    type Output = Result<EventRef, CommitError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(work) = self.0.as_mut() else { return Poll::Ready(Err(CommitError::Store(StoreError::Closed))) };
        let polled = work.as_mut().poll(context);
        if polled.is_ready() {
            self.0 = None;
        }
        polled
    }
}

impl Drop for Finishing {
    fn drop(&mut self) {
        if let (Some(work), Ok(runtime)) = (self.0.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(work);
        }
    }
}

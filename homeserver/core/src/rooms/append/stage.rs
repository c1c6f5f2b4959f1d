//! The batch of one event, and the room in memory moved behind it.

use std::{collections::BTreeSet, sync::Arc};

use matron_policy::ROOM_POLICY_TYPE;
use matron_room::{Membership, Pdu};
use matron_storage::{Batch, Key, SlotForm, StreamPos, Table};
use ruma::{EventId, OwnedEventId, OwnedServerName, OwnedUserId, RoomId};

use super::{Append, Place, relation_of};
use crate::{
    Core, Error,
    federation::{
        fetch::Judged,
        gaps::{ROOM_FOR_HISTORY, marks_of},
    },
    house::to_json,
    retention::outlives_words,
    rooms::{
        UnderWay,
        members::UserRoom,
        record::{EventRef, Flag, Record, Status, StoredEvent},
        room::{GroupHex, Head, Inner, Room, RoomMeta},
        state_map::{Change, GroupId, StateMap, difference},
    },
};

/// More forward extremities than this are cut: the oldest go.
const MAX_EXTREMITIES: usize = 20;

/// An event behind which the room in memory stands, and what follows from it once it is committed.
#[derive(Debug)]
pub(crate) struct Staged {
    pub(super) room: Arc<Room>,
    pub(super) event: EventRef,
    pub(super) under_way: UnderWay,
    /// How its position is written, if it is shown.
    pub(super) form: Option<SlotForm>,
    pub(super) position_index: u32,
    /// Users whose membership changed.
    pub(super) affected: Vec<OwnedUserId>,
    pub(super) joined: imbl::OrdSet<OwnedUserId>,
    pub(super) destinations: BTreeSet<OwnedServerName>,
    /// Events of which the store holds something newer.
    pub(super) stale: Vec<OwnedEventId>,
    /// The power levels and size of the room, for push rules.
    pub(super) context: crate::push::RoomContext,
    /// Whether history before it is missing here.
    pub(super) after_gap: bool,
    /// Whether the room's policy changed.
    pub(super) policy_moved: bool,
    /// Whether that changed which says how long content lives.
    pub(super) lifetime_moved: bool,
}

impl Staged {
    pub(super) fn event_id(&self) -> &EventId {
        self.event.id()
    }

    pub(super) fn room_id(&self) -> &RoomId {
        self.room.id()
    }

    pub(super) fn affected(&self) -> &[OwnedUserId] {
        &self.affected
    }

    /// Whether it is shown at the end of the timeline.
    pub(super) fn is_at_the_end(&self) -> bool {
        self.form == Some(SlotForm::Timeline)
    }

    /// Its batch went behind others, which take this many positions.
    pub(super) fn move_position(&mut self, by: u32) {
        self.position_index = self.position_index.saturating_add(by);
    }
}

/// The states around an event.
struct Around<'a> {
    /// The state before it.
    before: GroupId,
    /// The room's current state after it; `None`: unchanged.
    after: Option<&'a StateMap>,
    /// Events of them that need not be read.
    at_hand: &'a Judged,
}

/// How the event moves the room's state.
struct Movement {
    /// The state after it.
    group_after: GroupId,
    /// Whether more than memberships changed.
    beyond_membership: bool,
    /// Whether the room's policy changed.
    policy: bool,
    /// Whether that changed which says how long content lives.
    lifetime: bool,
    /// Users whose membership changed.
    affected: Vec<OwnedUserId>,
    /// The servers that had someone joined before, if memberships changed.
    servers_before: BTreeSet<OwnedServerName>,
    /// The servers of those whose membership changed.
    servers_moved: BTreeSet<OwnedServerName>,
}

impl Core {
    /// The event's batch; the room in memory stands behind it already, so that the next can build on it.
    ///
    /// # Errors
    /// [`Error::Store`] when something it needs cannot be read.
    pub(crate) fn stage(&self, room: &Arc<Room>, inner: &mut Inner, item: Append) -> Result<(Batch, Staged), Error> {
        let Append {
            pdu,
            status,
            place,
            state_before,
            current_after,
            extremities,
            txn,
            federate,
            also_to,
            with,
            at_hand,
        } = item;
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

        let around = Around { before: state_before, after: current_after.as_ref(), at_hand: &at_hand };
        let movement = self.stage_state(&mut batch, room, inner, &pdu, &around, position_index)?;
        let (pdu, record) = self.record_of(inner, pdu, status, place, state_before)?;
        self.write_event(&mut batch, &pdu, &record, form.map(|form| (position_index, form)))?;
        write_timeline(&mut batch, &pdu, place, form, position_index, movement.group_after);
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
        self.write_expiry(&mut batch, inner, &pdu, &record)?;
        if place == Place::Graph {
            self.write_hidden(&mut batch, &pdu, &record);
        }
        if let Some(txn) = txn {
            batch.expect_absent(Table::EventTxn, txn.clone());
            batch.put(Table::EventTxn, txn, pdu.event_id().as_bytes());
        }
        let is_end = matches!(place, Place::Timeline | Place::AfterGap) && status == Status::Accepted;
        let extremities = match extremities {
            Some(extremities) => extremities,
            None if is_end => extremities_after(inner, &pdu),
            None => inner.head.extremities.clone(),
        };
        let head = Head { extremities, group: GroupHex(movement.group_after.0) };
        let head_bytes = to_json(&head)?;
        write_head(&mut batch, room, inner, &head_bytes)?;
        let destinations = self.destinations(inner, &pdu, &movement, federate, also_to)?;
        for destination in &destinations {
            self.write_outbox_event(&mut batch, destination, pdu.event_id(), position_index)?;
        }

        // The room in memory.
        let event = Arc::new(StoredEvent { pdu: pdu.clone(), record, content_gone: false, unrelated: Flag::default() });
        let under_way = self.rooms.set_out(Arc::clone(&event));
        inner.head = head;
        inner.head_bytes = Some(head_bytes);
        match current_after {
            Some(after) if movement.beyond_membership => inner.set_current(after),
            Some(after) => inner.current = after,
            None => {}
        }
        for id in &stale {
            inner.drop_pdu(id);
        }
        if pdu.is_state() && status == Status::Accepted && event.record.expires_ms == 0 {
            inner.keep_pdu(pdu);
        }
        let staged = Staged {
            room: Arc::clone(room),
            event,
            under_way,
            form: form.filter(|_| status == Status::Accepted),
            position_index,
            affected: movement.affected,
            joined: inner.joined.clone(),
            destinations,
            stale,
            context: self.push_context(inner)?,
            after_gap: place == Place::AfterGap,
            policy_moved: movement.policy,
            lifetime_moved: movement.lifetime,
        };
        Ok((batch, staged))
    }

    /// The state after the event, and everyone's standing in it.
    fn stage_state(
        &self,
        batch: &mut Batch,
        room: &Room,
        inner: &mut Inner,
        pdu: &Pdu,
        around: &Around<'_>,
        position_index: u32,
    ) -> Result<Movement, Error> {
        let changes = around.after.map(|after| difference(&inner.current, after)).unwrap_or_default();
        let mut movement = Movement {
            group_after: GroupId(inner.head.group.0),
            beyond_membership: false,
            policy: false,
            lifetime: false,
            affected: Vec::new(),
            servers_before: BTreeSet::new(),
            servers_moved: BTreeSet::new(),
        };
        if let (Some(after), false) = (around.after, changes.is_empty()) {
            movement.group_after = self.write_group_after(batch, inner, around.before, &changes, after)?;
        }
        for (key, id) in &changes {
            if &*key.kind != "m.room.member" {
                movement.beyond_membership = true;
                if &*key.kind == ROOM_POLICY_TYPE && key.key.is_empty() {
                    movement.policy = true;
                    self.write_moved_policy(batch, pdu);
                }
                if matches!(&*key.kind, ROOM_POLICY_TYPE | "m.room.retention") && key.key.is_empty() {
                    movement.lifetime = true;
                    self.write_moved_lifetime(batch, pdu);
                }
                continue;
            }
            let Ok(user) = OwnedUserId::try_from(&*key.key) else { continue };
            if movement.affected.is_empty() {
                movement.servers_before = inner.servers.keys().cloned().collect();
            }
            let member = match id {
                Some(id) if **id == *pdu.event_id() => Some(pdu.clone()),
                Some(id) if let Some((member, _)) = around.at_hand.get(&**id) => Some(member.clone()),
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
            self.write_standing(batch, room.id(), &user, &standing, position_index)?;
            self.write_sharing(batch, room.id(), &user, membership)?;
            if user.server_name() != self.server_name {
                movement.servers_moved.insert(user.server_name().to_owned());
            }
            inner.set_joined(&user, membership == Membership::Join);
            movement.affected.push(user);
        }
        Ok(movement)
    }

    /// Adds the state after the event, as what it changes of the room's current state or of the state before the event,
    /// whichever is less: a room that is joined with ten thousand members is not written twice.
    fn write_group_after(
        &self,
        batch: &mut Batch,
        inner: &Inner,
        state_before: GroupId,
        changes: &[Change],
        after: &StateMap,
    ) -> Result<GroupId, Error> {
        let current = GroupId(inner.head.group.0);
        if state_before != current
            && let Some(before) = self.rooms.cached_group(state_before)
        {
            let own = difference(&before, after);
            if own.len() < changes.len() {
                return self.write_state_group(batch, state_before, &own, after);
            }
        }
        self.write_state_group(batch, current, changes, after)
    }

    /// What is stored of the event: the content of one whose redaction came before it is never written.
    fn record_of(
        &self,
        inner: &mut Inner,
        pdu: Pdu,
        status: Status,
        place: Place,
        state_before: GroupId,
    ) -> Result<(Pdu, Record), Error> {
        let received_ms = self.now_ms();
        let redacted_by = match status {
            Status::Accepted => self.redaction_that_waits(inner, &pdu)?,
            _ => None,
        };
        let (pdu, (bucket, expires_ms)) = if redacted_by.is_some() {
            let bare = pdu.skeleton();
            (bare.map_err(|error| Error::internal(format!("an event has no redacted form: {error}")))?, (0, 0))
        } else {
            let life = self.life_of(inner, &pdu, received_ms)?;
            if life.1 != 0 && life.1 <= received_ms && outlives_words(&pdu) {
                // Its words died before it came.
                let silent = pdu.without_words();
                (silent.map_err(|error| Error::internal(format!("an event has no redacted form: {error}")))?, (0, 0))
            } else {
                (pdu, life)
            }
        };
        let timeline = if let Place::Gap { order, .. } = place { order } else { 0 };
        let version = pdu.room_version();
        Ok((pdu, Record { status, timeline, received_ms, state_before, bucket, expires_ms, redacted_by, version }))
    }

    /// The servers that must hear of the event.
    fn destinations(
        &self,
        inner: &mut Inner,
        pdu: &Pdu,
        movement: &Movement,
        federate: bool,
        also_to: BTreeSet<OwnedServerName>,
    ) -> Result<BTreeSet<OwnedServerName>, Error> {
        let mut destinations = also_to;
        if federate {
            let servers: BTreeSet<OwnedServerName> =
                movement.servers_before.iter().chain(inner.servers.keys()).cloned().collect();
            if pdu.is_state() {
                // Also for those whom policy has no place for any more: by the state they learn that they are out.
                destinations.extend(servers);
            } else {
                let within = self.servers_within(inner, servers.iter().map(|server| &**server))?;
                destinations.extend(within.into_iter().map(ToOwned::to_owned));
            }
            if pdu.membership().is_some_and(|membership| membership != "invite") {
                destinations.extend(movement.servers_moved.iter().cloned());
            }
        }
        destinations.remove(&self.server_name);
        Ok(destinations)
    }
}

/// The event's place in the timeline, with the state after it.
fn write_timeline(
    batch: &mut Batch,
    pdu: &Pdu,
    place: Place,
    form: Option<SlotForm>,
    position_index: u32,
    after: GroupId,
) {
    let row = |group: GroupId| {
        let mut value = pdu.event_id().as_bytes().to_vec();
        value.push(0);
        value.extend_from_slice(&group.0);
        value
    };
    if let Some(form) = form {
        let (key, slot) = Key::new().text(pdu.room_id()).position(position_index, form);
        batch.put_at(Table::RoomTimeline, key, Some(slot), row(after), None);
    }
    if let Place::Gap { order, group_after } = place {
        batch.put(Table::RoomTimeline, Key::new().text(pdu.room_id()).number(order), row(group_after));
    }
    if place == Place::AfterGap {
        let (key, slot) = marks_of(pdu.room_id()).position(position_index, SlotForm::Timeline);
        batch.put_at(Table::Misc, key, Some(slot), pdu.event_id().as_bytes().to_vec(), None);
    }
}

/// The end of the graph behind the event: it takes the place of those it refers to.
fn extremities_after(inner: &Inner, pdu: &Pdu) -> Vec<(OwnedEventId, u64)> {
    let mut ends = inner.head.extremities.clone();
    ends.retain(|(id, _)| !pdu.prev_events().contains(id));
    ends.push((pdu.event_id().to_owned(), pdu.depth()));
    let surplus = ends.len().saturating_sub(MAX_EXTREMITIES);
    ends.drain(..surplus);
    ends
}

/// The room's head, which must still be the one that the event was built on.
fn write_head(batch: &mut Batch, room: &Room, inner: &Inner, head: &Vec<u8>) -> Result<(), Error> {
    if Some(head) == inner.head_bytes.as_ref() {
        return Ok(());
    }
    let key = Key::new().text(room.id());
    match &inner.head_bytes {
        Some(before) => batch.expect_equals(Table::RoomExtremity, key.clone(), before.clone()),
        None => {
            let meta = RoomMeta { version: room.version().as_str().to_owned() };
            batch.put(Table::RoomMeta, key.clone(), to_json(&meta)?);
            batch.expect_absent(Table::RoomExtremity, key.clone())
        }
    };
    batch.put(Table::RoomExtremity, key, head.clone());
    Ok(())
}

//! One event becomes one batch: the only place that writes rooms.
//!
//! [`Core::append`] runs under the room's pen and never waits: it builds the batch ([`stage`](mod@stage)), hands it to the
//! committer and moves the room in memory forward, so that the next event can follow at once and both share a
//! flush. [`Core::finish_append`] waits for the commit and publishes ([`finish`](mod@finish)). If the commit fails, the room is marked
//! broken and opened anew: each batch expects the head that the one before wrote, so none that built on the
//! failed one can succeed. A room's first events are staged one after another and share one batch.

mod finish;
mod relation;
mod rows;
mod stage;

pub use relation::{Relation, relation_of};
pub use rows::RelationRow;
pub(crate) use stage::Staged;

use std::{collections::BTreeSet, sync::Arc};

use matron_room::Pdu;
use matron_storage::{Batch, Pending};
use ruma::OwnedServerName;

use super::{
    changes::ChangeGuard,
    record::Status,
    room::{Inner, Room},
    state_map::{GroupId, StateMap},
};
use crate::{Core, Error, federation::fetch::Judged, push::Uncounted};

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
    /// Events that its state names, so that they need not be read from the store.
    pub(crate) at_hand: Arc<Judged>,
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
            at_hand: Arc::default(),
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
    announced: Announced,
}

/// Events that share one commit; must go to [`Core::finish_together`].
#[derive(Debug)]
#[must_use = "an append is only acknowledged by finish_together"]
pub struct AppendingTogether {
    pending: Pending,
    announced: Vec<Announced>,
}

/// A staged event of which syncs and counts know that it comes.
#[derive(Debug)]
struct Announced {
    staged: Staged,
    change: ChangeGuard,
    uncounted: Option<Uncounted>,
}

impl Appending {
    /// The id of the event on its way.
    pub(crate) fn event_id(&self) -> &ruma::EventId {
        self.announced.staged.event_id()
    }
}

impl Core {
    /// The event is on its way to the disk, and the room in memory stands behind it.
    ///
    /// # Errors
    /// [`Error::Store`] when something it needs cannot be read; nothing has changed then.
    pub(crate) fn append(&self, room: &Arc<Room>, inner: &mut Inner, item: Append) -> Result<Appending, Error> {
        let (batch, staged) = self.stage(room, inner, item)?;
        let announced = self.announce(staged);
        Ok(Appending { pending: self.store.submit(batch), announced })
    }

    /// The staged events, in their order, are on their way to the disk: all of them or none.
    ///
    /// # Errors
    /// [`Error::Internal`] if their batches contradict each other, which those of one room never do.
    pub(crate) fn submit_together(&self, items: Vec<(Batch, Staged)>) -> Result<AppendingTogether, Error> {
        let mut whole = Batch::new();
        let mut announced = Vec::with_capacity(items.len());
        for (batch, mut staged) in items {
            let moved = whole.then(batch).map_err(|clash| Error::internal(clash.to_string()))?;
            staged.move_position(moved);
            announced.push(self.announce(staged));
        }
        Ok(AppendingTogether { pending: self.store.submit(whole), announced })
    }

    /// INVARIANT: announced under the room's pen and before it is submitted, so that no sync steps over it, and so that
    /// the events of a room are announced in the order of their positions.
    fn announce(&self, staged: Staged) -> Announced {
        let change = self.rooms.changes.begin(staged.room_id(), staged.affected());
        let uncounted = staged.is_at_the_end().then(|| self.push.expect_event(staged.room_id(), self.position()));
        Announced { staged, change, uncounted }
    }
}

//! What follows from a commit.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::future::BoxFuture;
use matron_storage::{CommitError, Committed, SlotForm, StoreError};
use tracing::Instrument as _;

use super::{Announced, Appending, AppendingTogether, Staged, relation_of};
use crate::{
    Core,
    rooms::record::{EventRef, StoredEvent},
};

impl Core {
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

    /// All the events are durable and visible, and everyone who waits for them has been woken.
    ///
    /// # Errors
    /// As [`Core::finish_append`]; none of them is durable then.
    pub(crate) async fn finish_together(self: &Arc<Self>, appending: AppendingTogether) -> Result<(), CommitError> {
        // INVARIANT: as in `finish_append`.
        Finishing(Some(Box::pin(Arc::clone(self).finish_all(appending).in_current_span()))).await
    }

    async fn finish(self: Arc<Self>, appending: Appending) -> Result<EventRef, CommitError> {
        let Appending { pending, announced } = appending;
        match pending.await {
            Ok(committed) => Ok(self.publish(announced, committed).await),
            Err(error) => {
                self.take_back(&announced.staged);
                Err(error)
            }
        }
    }

    async fn finish_all(self: Arc<Self>, appending: AppendingTogether) -> Result<(), CommitError> {
        let AppendingTogether { pending, announced } = appending;
        match pending.await {
            Ok(committed) => {
                for announced in announced {
                    self.publish(announced, committed).await;
                }
                Ok(())
            }
            Err(error) => {
                announced.iter().for_each(|announced| self.take_back(&announced.staged));
                Err(error)
            }
        }
    }

    /// Memory forgets what was not committed: the room is opened anew at its next use.
    fn take_back(&self, staged: &Staged) {
        staged.room.lock().broken = true;
        self.rooms.close(staged.room.id());
        for user in &staged.affected {
            self.rooms.forget_user(user);
        }
    }

    /// What follows from a commit: caches, counts, syncs, push, application services, other servers.
    async fn publish(self: &Arc<Self>, announced: Announced, committed: Committed) -> EventRef {
        let Announced { staged, change, uncounted } = announced;
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
            policy_moved,
            lifetime_moved,
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
        change.publish(committed.last());
        if let Some(uncounted) = uncounted {
            self.push_event(&crate::push::NewEvent {
                event: Arc::clone(&event),
                position,
                joined: joined.clone(),
                affected: affected.clone(),
                context,
            });
            uncounted.counted(position);
            self.appservices_interested(&event, &joined);
        }
        if !stale.is_empty() {
            // What was redacted notifies nobody any more.
            self.push.forget_room_counts(room.id());
        }
        if !stale.is_empty() || lifetime_moved {
            // What was redacted may be waiting for its purge, and what is there for its new end.
            self.wake_retention();
        }
        self.bind_files(&event).await;
        self.attach_media_of(&event).await;
        self.notifier.wake_members(&joined);
        self.wake_onlookers(room.id());
        self.notifier.wake_users(affected.iter().map(|user| &**user));
        if policy_moved {
            self.governance.follow();
        }
        if !affected.is_empty() {
            self.membership_changed(&room, &affected).await;
        }
        for destination in &destinations {
            self.wake_outbox(destination);
        }
        event
    }
}

/// Work that its owner does, and a task of its own once the owner is gone. Not a task from the start: the sender's answer
/// would come after everyone else's sync, and matrix-js-sdk loses such an answer when the event is in a thread.
struct Finishing<T: Send + 'static>(Option<BoxFuture<'static, Result<T, CommitError>>>);

impl<T: Send + 'static> Future for Finishing<T> {
    type Output = Result<T, CommitError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(work) = self.0.as_mut() else { return Poll::Ready(Err(CommitError::Store(StoreError::Closed))) };
        let polled = work.as_mut().poll(context);
        if polled.is_ready() {
            self.0 = None;
        }
        polled
    }
}

impl<T: Send + 'static> Drop for Finishing<T> {
    fn drop(&mut self) {
        if let (Some(work), Ok(runtime)) = (self.0.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(work);
        }
    }
}

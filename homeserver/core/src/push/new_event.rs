//! A new event reaches those it notifies: counts move, pushers are told.

use std::{collections::BTreeSet, sync::Arc};

use matron_room::{Membership, PowerLevels};
use matron_storage::StreamPos;
use ruma::{OwnedUserId, RoomId, UserId};

use super::{
    counts::Counted,
    evaluate::{Context, EventView, evaluate},
    worker::{Job, News},
};
use crate::{
    Core, Error,
    rooms::{StateKey, record::EventRef, room::Inner},
};

/// What rules ask of a room, taken when the event was appended.
#[derive(Clone, Debug, Default)]
pub struct RoomContext {
    /// How many are joined.
    pub member_count: u64,
    /// Who may notify all.
    pub levels: Option<Arc<PowerLevels>>,
}

/// An event that was just committed to the end of a timeline.
#[derive(Clone, Debug)]
pub struct NewEvent {
    /// The event.
    pub event: EventRef,
    /// Where in the stream it is.
    pub position: StreamPos,
    /// Who is joined after it.
    pub joined: imbl::OrdSet<OwnedUserId>,
    /// Whose membership it changed.
    pub affected: Vec<OwnedUserId>,
    /// What rules ask of the room.
    pub context: RoomContext,
}

impl Core {
    /// What push rules ask of a room in memory.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(crate) fn push_context(&self, inner: &mut Inner) -> Result<RoomContext, Error> {
        let member_count = u64::try_from(inner.joined.len()).unwrap_or(u64::MAX);
        match inner.power_levels(self) {
            Ok(levels) => Ok(RoomContext { member_count, levels: Some(levels) }),
            Err(Error::NotFound(_)) => Ok(RoomContext { member_count, levels: None }),
            Err(error) => Err(error),
        }
    }

    /// Counts have moved and pushers are queued. Called after the commit and before anyone is woken; cannot fail the request.
    pub(crate) fn push_event(self: &Arc<Self>, new: &NewEvent) {
        self.follow_guest_access(&new.event, &new.joined);
        self.note_openness(new.event.pdu.room_id(), new.event.pdu.kind());
        if let Err(error) = self.notify_users(new) {
            self.push.forget_room_counts(new.event.pdu.room_id());
            tracing::warn!(%error, event.id = %new.event.id(), "push rules could not be evaluated");
        }
    }

    fn notify_users(&self, new: &NewEvent) -> Result<(), Error> {
        let pdu = &new.event.pdu;
        let invited = new.affected.iter().filter(|user| {
            pdu.membership_state() == Some(Membership::Invite) && pdu.state_key() == Some(user.as_str())
        });
        let counted = self.push.counts.lock().announce(pdu.room_id(), new.position);
        let mut view = None;
        let mut notified = Vec::new();
        // However many members there are, only those with a warm count or a pusher are looked at.
        let mut users: BTreeSet<&OwnedUserId> = counted.iter().filter(|user| new.joined.contains(*user)).collect();
        let reached = self.push.reached.among(&new.joined);
        users.extend(reached.iter().chain(invited).filter(|user| self.is_local_user(user)));
        for user in users {
            if *user == *pdu.sender() {
                continue;
            }
            let is_counted = counted.contains(user);
            let pushers = self.pushers_of(user)?;
            if !is_counted && pushers.is_empty() {
                continue;
            }
            if self.ignored_users(user)?.contains(pdu.sender()) {
                continue;
            }
            let view = view.get_or_insert_with(|| EventView::new(pdu));
            let rules = self.compiled_rules(user)?;
            let context = self.user_context(user, &new.context, &rules, &new.event)?;
            let Some(actions) = evaluate(&rules, user, view, &context) else { continue };
            if !actions.notify {
                continue;
            }
            if is_counted && new.joined.contains(user) {
                notified.push((&**user, actions.highlight));
            }
            for pusher in pushers.iter().filter(|pusher| pusher.enabled) {
                self.push.jobs.add(Job {
                    user: user.clone(),
                    pusher: pusher.id(),
                    news: News::Event(Arc::clone(&new.event), Arc::clone(&actions)),
                });
            }
        }
        if counted.is_empty() {
            return Ok(());
        }
        let said_by = Some(pdu.sender()).filter(|sender| !pdu.is_state() && counted.contains(*sender));
        let thread = self.thread_of(&new.event)?;
        self.count_event(&Counted { room: pdu.room_id(), position: new.position, thread, notified, said_by })
    }

    /// The context of one user's evaluation of an event.
    pub(super) fn user_context(
        &self,
        user: &UserId,
        room: &RoomContext,
        rules: &super::CompiledRules,
        event: &EventRef,
    ) -> Result<Context, Error> {
        let room_id = event.pdu.room_id();
        let display_name = if rules.wants_display_name { self.name_in_room(user, room_id)? } else { None };
        let thread = if rules.wants_thread { self.thread_of(event)? } else { None };
        let subscribed = thread.map(|root| self.is_subscribed(user, room_id, &root)).transpose()?;
        Ok(Context { member_count: room.member_count, levels: room.levels.clone(), display_name, subscribed })
    }

    /// SPEC: "contains_display_name": the name is the one that the user has in this room.
    fn name_in_room(&self, user: &UserId, room: &RoomId) -> Result<Option<String>, Error> {
        let Some(room) = self.find_room(room)? else { return Ok(None) };
        let Some(id) = room.current().get(&StateKey::new("m.room.member", user.as_str())).cloned() else {
            return Ok(None);
        };
        let content = self.load_event(&id)?.map(|event| event.pdu.content_value());
        Ok(content.and_then(|content| content.get("displayname")?.as_str().map(str::to_owned)))
    }
}

//! One answer, from what is visible at one position.

use std::{collections::BTreeSet, sync::Arc};

use matron_room::Membership;
use matron_storage::StreamPos;
use ruma::OwnedRoomId;
use serde_json::json;

use super::{
    Ignored, SyncAnswer, SyncRequest, SyncToken,
    answer::{DeviceLists, JoinedRoom},
    joined::raw,
};
use crate::{Core, Error, Requester};

/// How many to-device messages one answer holds.
const TO_DEVICE_LIMIT: usize = 100;

/// What an answer covers: `(since, to]`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span<'a> {
    /// What the client asked.
    pub request: &'a SyncRequest,
    /// Where the last answer ended.
    pub since: Option<SyncToken>,
    /// Up to here.
    pub to: StreamPos,
    /// Typing and presence, up to here.
    pub ephemeral: u64,
}

impl Core {
    /// The answer, as of now.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(super) async fn build_sync(
        self: &Arc<Self>,
        requester: &Requester,
        request: &SyncRequest,
    ) -> Result<SyncAnswer, Error> {
        self.settle_peeks(requester, request.since.map(|since| since.stream)).await?;
        // INVARIANT: sampled before anything is read, so that whatever comes later is told next time.
        let ephemeral = self.ephemeral_serial();
        let position = self.position();
        let to = request.up_to.map_or(position, |up_to| up_to.min(position));
        let span = Span { request, since: request.since, to, ephemeral };
        if span.since.is_some_and(|since| since.stream > to) {
            return Err(Error::invalid("this token is from the future, or from another server"));
        }
        let ignored = self.ignored_users(&requester.user_id)?;
        let mut answer = SyncAnswer::default();
        self.add_rooms(requester, &span, &ignored, &mut answer)?;
        self.add_peeks(requester, &span, &ignored, &mut answer.rooms)?;
        self.add_account_data(requester, &span, &mut answer)?;
        let to_device = self.add_device_matters(requester, &span, &mut answer)?;
        self.add_presence(requester, &span, &ignored, &mut answer)?;
        answer.next_batch = SyncToken { stream: to, to_device, ephemeral }.to_string();
        Ok(answer)
    }

    fn add_rooms(
        self: &Arc<Self>,
        requester: &Requester,
        span: &Span<'_>,
        ignored: &Ignored,
        answer: &mut SyncAnswer,
    ) -> Result<(), Error> {
        let filter = &span.request.filter.room;
        let standings = self.user_rooms(&requester.user_id)?;
        let changed = span
            .since
            .filter(|_| !span.request.full_state)
            .and_then(|since| self.rooms.changes.rooms_since(since.stream))
            .map(|mut rooms| {
                let since = span.since.unwrap_or_default();
                rooms.extend(self.typing_rooms_since(since.ephemeral, span.ephemeral));
                rooms
            });
        let look_at = |room: &OwnedRoomId| changed.as_ref().is_none_or(|changed| changed.contains(room));
        let wanted: BTreeSet<OwnedRoomId> = match &changed {
            // The shorter list leads.
            Some(changed) if changed.len() < standings.len() => {
                let mut wanted: BTreeSet<_> =
                    changed.iter().filter(|room| standings.contains_key(*room)).cloned().collect();
                let since = span.since.unwrap_or_default().stream;
                wanted.extend(
                    standings.iter().filter(|(_, standing)| standing.position > since).map(|(room, _)| room.clone()),
                );
                wanted
            }
            _ => standings.keys().cloned().collect(),
        };
        for room_id in &wanted {
            let Some(standing) = standings.get(room_id) else { continue };
            if !filter.allows_room(room_id) {
                continue;
            }
            // A standing that is newer than this answer is told next time; until then the older one holds.
            let membership = if standing.position > span.to {
                match self.membership_in(&self.state_as_of(room_id, span.to)?, &requester.user_id)? {
                    Membership::Join => Membership::Join,
                    _ => continue,
                }
            } else {
                standing.membership
            };
            if membership != Membership::Join {
                self.other_room(requester, room_id, standing, span, ignored, &mut answer.rooms)?;
                continue;
            }
            let new_standing = span.since.is_some_and(|since| standing.position > since.stream);
            if !look_at(room_id) && !new_standing {
                continue;
            }
            let Some(room) = self.find_room(room_id)? else { continue };
            let told = self.joined_room(requester, &room, standing, span, ignored)?;
            if span.since.is_none() || span.request.full_state || !told.is_empty() {
                answer.rooms.join.insert(room_id.clone(), told);
            }
        }
        Ok(())
    }

    fn add_account_data(
        self: &Arc<Self>,
        requester: &Requester,
        span: &Span<'_>,
        answer: &mut SyncAnswer,
    ) -> Result<(), Error> {
        let filter = &span.request.filter;
        let since = span.since.filter(|_| !span.request.full_state).map(|since| since.stream);
        for entry in self.account_data_since(&requester.user_id, since)? {
            if entry.position > span.to {
                continue;
            }
            let event = raw(&entry.told())?;
            let Some(room_id) = entry.room_id else {
                if filter.account_data.allows(&entry.kind, None) {
                    answer.account_data.events.push(event);
                }
                continue;
            };
            if !filter.room.allows_room(&room_id) || !filter.room.account_data.allows(&entry.kind, None) {
                continue;
            }
            match self.standing(&requester.user_id, &room_id)?.map(|standing| standing.membership) {
                Some(Membership::Join) => {
                    let told = match answer.rooms.join.entry(room_id.clone()) {
                        std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
                        std::collections::btree_map::Entry::Vacant(entry) => {
                            let counts = self.unread_counts(
                                &requester.user_id,
                                &room_id,
                                filter.room.timeline.unread_thread_notifications,
                            )?;
                            entry.insert(JoinedRoom {
                                unread_notifications: counts.0,
                                unread_thread_notifications: counts.1,
                                ..JoinedRoom::default()
                            })
                        }
                    };
                    told.account_data.events.push(event);
                }
                Some(Membership::Leave | Membership::Ban) => {
                    if let Some(left) = answer.rooms.leave.get_mut(&room_id) {
                        left.account_data.events.push(event);
                    }
                }
                Some(Membership::Invite | Membership::Knock) | None => {}
            }
        }
        Ok(())
    }

    /// Adds to-device messages, device lists and key counts; gives the position up to which messages are told.
    fn add_device_matters(
        self: &Arc<Self>,
        requester: &Requester,
        span: &Span<'_>,
        answer: &mut SyncAnswer,
    ) -> Result<StreamPos, Error> {
        let user = &requester.user_id;
        if let Some(since) = span.since {
            let changes = self.device_list_changes_between(user, since.stream, span.to)?;
            if !changes.changed.is_empty() || !changes.left.is_empty() {
                answer.device_lists = Some(DeviceLists {
                    changed: changes.changed.into_iter().collect(),
                    left: changes.left.into_iter().collect(),
                });
            }
        }
        let Some(device) = &requester.device_id else { return Ok(span.to) };
        let counts = self.otk_counts(user, device)?;
        answer.device_one_time_keys_count = Some(counts.counts);
        answer.device_unused_fallback_key_types = Some(counts.unused_fallback);
        let from = span.since.map_or(StreamPos(0), |since| since.to_device);
        let page = self.to_device_since(user, device, from, span.to, TO_DEVICE_LIMIT)?;
        answer.to_device.events = page.events;
        Ok(page.next)
    }

    fn add_presence(
        self: &Arc<Self>,
        requester: &Requester,
        span: &Span<'_>,
        ignored: &Ignored,
        answer: &mut SyncAnswer,
    ) -> Result<(), Error> {
        if !self.settings.presence {
            return Ok(());
        }
        let filter = &span.request.filter.presence;
        let since = span.since.map_or(0, |since| since.ephemeral);
        let mut updates = self.presence_since(&requester.user_id, since, span.ephemeral)?;
        if span.since.is_some() {
            let told: BTreeSet<_> = updates.iter().map(|update| update.user_id.clone()).collect();
            let neighbours = self.presence_of_new_neighbours(&requester.user_id, answer)?;
            updates.extend(neighbours.into_iter().filter(|update| !told.contains(&update.user_id)));
        }
        for update in updates {
            if filter.allows("m.presence", Some(&update.user_id)) && !ignored.contains(&update.user_id) {
                answer.presence.events.push(raw(&json!({
                    "type": "m.presence",
                    "sender": update.user_id,
                    "content": update.content,
                }))?);
            }
        }
        Ok(())
    }
}

impl Core {
    /// The presence of those with whom a room is shared only now. Who is merely invited shares none yet.
    fn presence_of_new_neighbours(
        &self,
        user: &ruma::UserId,
        answer: &SyncAnswer,
    ) -> Result<Vec<crate::presence::PresenceUpdate>, Error> {
        let mut others: BTreeSet<&ruma::OwnedUserId> =
            answer.rooms.join.values().flat_map(|room| &room.newcomers).collect();
        if let Some(lists) = &answer.device_lists {
            let sharing = self.users_sharing_room(user)?;
            others.extend(lists.changed.iter().filter(|other| sharing.contains(*other)));
        }
        others.retain(|other| &***other != user);
        Ok(self.presence_of_users(others.into_iter().map(|other| &**other)))
    }
}

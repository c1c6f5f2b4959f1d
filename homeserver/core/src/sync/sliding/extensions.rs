//! What is told beside rooms: to-device messages, keys, account data, receipts, typing.

use std::{collections::BTreeMap, sync::Arc};

use matron_room::Membership;
use matron_storage::StreamPos;
use ruma::{OwnedRoomId, RoomId};
use serde_json::{json, value::RawValue};

use super::{
    answer::{AccountDataAnswer, ByRoom, E2eeAnswer, SlidingAnswer, ThreadsAnswer, ToDeviceAnswer},
    connection::{Position, Told},
    request::SlidingRequest,
    select::{Build, Wanted, Windows},
};
use crate::{
    Core, Error, Requester,
    sync::{answer::DeviceLists, joined::raw},
    threads::SubscriptionChanges,
};

/// How many to-device messages one answer holds.
const TO_DEVICE_LIMIT: u64 = 100;

fn to_device_since(request: &SlidingRequest) -> Result<Option<StreamPos>, Error> {
    let since = request.extensions.to_device.since.as_deref().filter(|since| !since.is_empty());
    since
        .map(|since| since.parse().map(StreamPos).map_err(|_| Error::invalid("this is not a token of this server")))
        .transpose()
}

impl Core {
    /// To-device messages that the device has are gone.
    ///
    /// # Errors
    /// [`Error::InvalidParam`] for a token that is not ours; [`Error::Store`].
    pub(super) async fn acknowledge_to_device(
        &self,
        requester: &Requester,
        request: &SlidingRequest,
    ) -> Result<(), Error> {
        if request.extensions.to_device.is_on()
            && let Some(device) = &requester.device_id
            && let Some(since) = to_device_since(request)?
        {
            self.to_device_acknowledge(&requester.user_id, device, since.min(self.position())).await?;
        }
        Ok(())
    }

    /// Adds the extensions to the answer.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(super) fn add_extensions(
        &self,
        build: &Build<'_>,
        wanted: &[Wanted],
        next: &mut Position,
        answer: &mut SlidingAnswer,
    ) -> Result<(), Error> {
        let extensions = &build.request.extensions;
        if extensions.to_device.is_on() {
            answer.extensions.to_device = self.to_device_extension(build)?;
        }
        if extensions.e2ee.is_on() {
            answer.extensions.e2ee = self.e2ee_extension(build)?;
        }
        if extensions.account_data.is_on() {
            answer.extensions.account_data = self.account_data_extension(build, wanted, next)?;
        }
        if extensions.receipts.is_on() {
            answer.extensions.receipts = self.receipts_extension(build, wanted, next, answer)?;
        }
        if extensions.typing.is_on() {
            answer.extensions.typing = self.typing_extension(build, wanted)?;
        }
        let threads = &extensions.thread_subscriptions;
        if threads.enabled == Some(true) {
            let after = build.since.filter(|_| build.known.threads).unwrap_or_default();
            let changes = self.subscription_changes(build.user(), after, build.to, threads.limit)?;
            let prev_batch = changes.before.map(|position| position.0.to_string());
            if changes != SubscriptionChanges::default() {
                answer.extensions.thread_subscriptions = Some(ThreadsAnswer { changes, prev_batch });
            }
            next.threads = true;
        }
        Ok(())
    }

    fn to_device_extension(&self, build: &Build<'_>) -> Result<Option<ToDeviceAnswer>, Error> {
        let Some(device) = &build.requester.device_id else { return Ok(None) };
        let from = to_device_since(build.request)?.unwrap_or_default();
        let limit = build.request.extensions.to_device.limit.unwrap_or(TO_DEVICE_LIMIT).clamp(1, TO_DEVICE_LIMIT);
        let limit = usize::try_from(limit).unwrap_or(1);
        let page = self.to_device_since(build.user(), device, from, build.to.max(from), limit)?;
        Ok(Some(ToDeviceAnswer { next_batch: page.next.0.to_string(), events: page.events }))
    }

    fn e2ee_extension(&self, build: &Build<'_>) -> Result<Option<E2eeAnswer>, Error> {
        let user = build.user();
        let mut e2ee = E2eeAnswer::default();
        if let Some(since) = build.since {
            let changes = self.device_list_changes_between(user, since, build.to)?;
            if !changes.changed.is_empty() || !changes.left.is_empty() {
                e2ee.device_lists = Some(DeviceLists {
                    changed: changes.changed.into_iter().collect(),
                    left: changes.left.into_iter().collect(),
                });
            }
        }
        let Some(device) = &build.requester.device_id else { return Ok(None) };
        let counts = self.otk_counts(user, device)?;
        e2ee.device_one_time_keys_count = counts.counts;
        e2ee.device_unused_fallback_key_types = counts.unused_fallback;
        Ok(Some(e2ee))
    }

    /// Account data: each entry once, those of rooms when their room is in a window.
    fn account_data_extension(
        &self,
        build: &Build<'_>,
        wanted: &[Wanted],
        next: &mut Position,
    ) -> Result<Option<AccountDataAnswer>, Error> {
        let scope = &build.request.extensions.account_data;
        // From where the one that lags most has to be told.
        let mut from = build.since.filter(|_| build.known.account_data);
        let mut behind: Vec<&RoomId> = Vec::new();
        for room in wanted.iter().filter(|room| build.covers(scope, &room.id, room.through)) {
            let Some(sent) = next.rooms.get(&room.id) else { continue };
            if sent.account_data != Told::Live {
                let told = sent.account_data.up_to(build.since.unwrap_or_default());
                from = from.zip(told).map(|(from, told)| from.min(told));
                behind.push(&room.id);
            }
        }
        let entries = self.account_data_since(build.user(), from)?;
        let windows = if entries.is_empty() { Windows::default() } else { self.windows(build)? };
        let mut told = AccountDataAnswer::default();
        for entry in entries.into_iter().filter(|entry| entry.position <= build.to) {
            let event = || raw(&entry.told());
            let Some(room) = &entry.room_id else {
                if !build.known.account_data || build.since.is_none_or(|since| entry.position > since) {
                    told.global.push(event()?);
                }
                continue;
            };
            let Some(sent) = next.rooms.get(room) else { continue };
            let up_to = sent.account_data.up_to(build.since.unwrap_or_default());
            if up_to.is_some_and(|up_to| entry.position <= up_to) {
                continue;
            }
            if windows.get(room).is_some_and(|through| build.covers(scope, room, *through)) {
                told.rooms.entry(room.clone()).or_default().push(event()?);
            } else if let (Some(since), Some(sent)) = (build.since, next.rooms.get_mut(room)) {
                Arc::make_mut(sent).account_data.fall_behind(since);
            }
        }
        for room in behind {
            if let Some(sent) = next.rooms.get_mut(room) {
                Arc::make_mut(sent).account_data = Told::Live;
            }
        }
        next.account_data = true;
        Ok((!told.global.is_empty() || !told.rooms.is_empty()).then_some(told))
    }

    /// Receipts: of a room that is new to the client those on the events it is shown, and the user's own.
    fn receipts_extension(
        &self,
        build: &Build<'_>,
        wanted: &[Wanted],
        next: &mut Position,
        answer: &SlidingAnswer,
    ) -> Result<Option<ByRoom>, Error> {
        let scope = &build.request.extensions.receipts;
        let mut told = ByRoom::default();
        for room in wanted {
            let Some(sent) = next.rooms.get_mut(&room.id) else { continue };
            if !is_joined(build, &room.id) || !build.covers(scope, &room.id, room.through) {
                if let Some(since) = build.since {
                    Arc::make_mut(sent).receipts.fall_behind(since);
                }
                continue;
            }
            let initial = answer.rooms.get(&room.id).is_some_and(|room| room.initial);
            let after = sent.receipts.up_to(build.since.unwrap_or_default()).filter(|_| !initial);
            let event =
                self.receipts_between(build.user(), &room.id, after.unwrap_or_default(), build.to, &build.ignored)?;
            if let Some(event) = event {
                let shown = answer.rooms.get(&room.id).map(|room| &*room.timeline).unwrap_or_default();
                let event = if initial { on_these(&event, shown, build)? } else { Some(event) };
                told.rooms.extend(event.map(|event| (room.id.clone(), event)));
            }
            if sent.receipts != Told::Live {
                Arc::make_mut(sent).receipts = Told::Live;
            }
        }
        Ok((!told.rooms.is_empty()).then_some(told))
    }

    fn typing_extension(&self, build: &Build<'_>, wanted: &[Wanted]) -> Result<Option<ByRoom>, Error> {
        let scope = &build.request.extensions.typing;
        let mut told = ByRoom::default();
        let mut rooms: BTreeMap<OwnedRoomId, bool> = wanted
            .iter()
            .filter(|room| !build.known.rooms.contains_key(&room.id) && build.covers(scope, &room.id, room.through))
            .map(|room| (room.id.clone(), true))
            .collect();
        if build.since.is_some() {
            let changed = self.typing_rooms_since(build.known.ephemeral, build.ephemeral);
            if !changed.is_empty() {
                let windows = self.windows(build)?;
                for room in changed {
                    if windows.get(&room).is_some_and(|through| build.covers(scope, &room, *through)) {
                        rooms.entry(room).or_insert(false);
                    }
                }
            }
        }
        for (room, new) in rooms {
            let (serial, users) = self.typing_in(&room);
            if serial == 0 || serial > build.ephemeral || !is_joined(build, &room) || (new && users.is_empty()) {
                continue;
            }
            let users: Vec<_> = users.into_iter().filter(|user| !build.ignored.contains(user)).collect();
            told.rooms.insert(room, raw(&json!({"type": "m.typing", "content": {"user_ids": users}}))?);
        }
        Ok((!told.rooms.is_empty()).then_some(told))
    }
}

fn is_joined(build: &Build<'_>, room: &RoomId) -> bool {
    build.order.standings.get(room).is_some_and(|standing| standing.membership == Membership::Join)
}

/// The receipts on these events, and the user's own.
fn on_these(event: &RawValue, shown: &[Box<RawValue>], build: &Build<'_>) -> Result<Option<Box<RawValue>>, Error> {
    #[derive(serde::Deserialize)]
    struct Id<'a> {
        #[serde(borrow)]
        event_id: std::borrow::Cow<'a, str>,
    }
    let ids: Vec<_> = shown.iter().filter_map(|event| serde_json::from_str::<Id<'_>>(event.get()).ok()).collect();
    let mut event: serde_json::Value = serde_json::from_str(event.get())
        .map_err(|error| Error::internal(format!("a receipt is not JSON: {error}")))?;
    let Some(content) = event.get_mut("content").and_then(serde_json::Value::as_object_mut) else { return Ok(None) };
    content.retain(|id, kinds| {
        if ids.iter().any(|shown| shown.event_id == *id) {
            return true;
        }
        let Some(kinds) = kinds.as_object_mut() else { return false };
        kinds.retain(|_, users| {
            let Some(users) = users.as_object_mut() else { return false };
            users.retain(|user, _| *user == *build.user().as_str());
            !users.is_empty()
        });
        !kinds.is_empty()
    });
    if content.is_empty() {
        return Ok(None);
    }
    raw(&event).map(Some)
}

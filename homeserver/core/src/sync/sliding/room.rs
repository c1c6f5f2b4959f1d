//! What is told of one room.

use std::{collections::BTreeSet, sync::Arc};

use matron_room::{Membership, Unsigned, sync_event};
use matron_storage::{Order, StreamPos};
use ruma::OwnedUserId;
use serde_json::Value;

use super::{
    answer::{SlidingAnswer, SlidingRoom},
    connection::{Position, SentRoom, Told},
    required::RoomConfig,
    select::{Build, Wanted},
};
use crate::{
    Core, Error,
    accounts::EventFilter,
    rooms::{
        Room, StateKey, StateMap, UserRoom,
        state_map::{difference, find_in},
        visibility::Reader,
    },
    sync::timeline::{Window, timeline_of},
};

const MEMBER: &str = "m.room.member";
/// How many lazily told members of a room are remembered; beyond, some are told twice.
const MAX_MEMBERS: usize = 5_000;

/// What is to be told of a room, and how much of it was told before.
struct Case<'a> {
    wanted: &'a Wanted,
    standing: &'a UserRoom,
    known: Option<&'a SentRoom>,
    /// Up to where it was told; `None`: nothing of it was.
    from: Option<StreamPos>,
}

impl Case<'_> {
    /// Whether the client has heard how the user stands in the room.
    fn is_told(&self) -> bool {
        self.from.is_some_and(|from| self.standing.position <= from)
    }

    fn is_dm(&self) -> Option<bool> {
        self.wanted.listed.as_ref().map(|listed| listed.is_dm)
    }

    fn bump(&self) -> Option<u64> {
        self.wanted.listed.as_ref().map(|listed| listed.bump)
    }
}

/// A joined room between two positions.
struct Stretch<'a> {
    /// Where the client's knowledge ends; `None`: it is told from the beginning.
    after: Option<StreamPos>,
    /// The state there.
    then: Option<StateMap>,
    window: Window,
    config: &'a RoomConfig,
}

impl Core {
    /// Adds what is new in a wanted room to the answer, and to what the client knows.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(super) fn tell_room(
        self: &Arc<Self>,
        build: &Build<'_>,
        wanted: &Wanted,
        next: &mut Position,
        answer: &mut SlidingAnswer,
    ) -> Result<(), Error> {
        let Some(standing) = build.order.standings.get(&wanted.id) else {
            next.rooms.remove(&wanted.id);
            return Ok(());
        };
        // A standing that is newer than this answer is told next time; until then the older one holds.
        let membership = if standing.position <= build.to {
            standing.membership
        } else {
            match self.membership_in(&self.state_as_of(&wanted.id, build.to)?, build.user())? {
                Membership::Join => Membership::Join,
                _ => {
                    if let (Some(sent), Some(since)) = (next.rooms.get_mut(&wanted.id), build.since) {
                        Arc::make_mut(sent).room.fall_behind(since);
                    }
                    return Ok(());
                }
            }
        };
        let known = build.known.rooms.get(&wanted.id).map(|sent| &**sent);
        let mut sent = known.cloned().unwrap_or_default();
        let from = known.zip(build.since).and_then(|(known, since)| known.room.up_to(since));
        let case = Case { wanted, standing, known, from };
        let told = match membership {
            Membership::Join => self.tell_joined(build, &case, &mut sent)?,
            Membership::Invite | Membership::Knock => self.tell_stripped(build, &case)?,
            Membership::Leave | Membership::Ban => self.tell_left(build, &case)?,
        };
        if let Some(room) = told {
            answer.rooms.insert(wanted.id.clone(), room);
        }
        if wanted.listed.is_none() && membership != Membership::Join {
            next.rooms.remove(&wanted.id);
            return Ok(());
        }
        sent.room = Told::Live;
        sent.config = Arc::clone(&wanted.config);
        sent.is_dm = case.is_dm().unwrap_or_default();
        next.rooms.insert(wanted.id.clone(), Arc::new(sent));
        Ok(())
    }

    /// Up to where the room was told, and its state there, if the user was in it: what is told now goes on from there.
    fn joined_before(&self, build: &Build<'_>, case: &Case<'_>) -> Result<Option<(StreamPos, StateMap)>, Error> {
        let Some(from) = case.from else { return Ok(None) };
        let then = self.state_as_of(&case.wanted.id, from)?;
        let was_joined = match case.standing.membership {
            Membership::Join if case.is_told() => true,
            _ => self.membership_in(&then, build.user())? == Membership::Join,
        };
        Ok(was_joined.then_some((from, then)))
    }

    fn tell_joined(
        self: &Arc<Self>,
        build: &Build<'_>,
        case: &Case<'_>,
        sent: &mut SentRoom,
    ) -> Result<Option<SlidingRoom>, Error> {
        let Case { wanted, known, .. } = *case;
        let Some(room) = self.find_room(&wanted.id)? else { return Ok(None) };
        let unmoved = case.is_told();
        // A room that is new to the client is told from its beginning.
        let (after, then) = self.joined_before(build, case)?.unzip();
        let expanded =
            after.is_some() && known.is_some_and(|known| known.config.timeline_limit < wanted.config.timeline_limit);
        let limit = usize::try_from(wanted.config.timeline_limit).unwrap_or(usize::MAX);
        let current = room.current();
        let filter = EventFilter::default();
        let mut reader = Reader::new(build.user());
        let window = self.window(room.id(), after.filter(|_| !expanded), build.to, limit, |event| {
            // Whoever was joined all the time since the last answer may see all that lies between.
            let stayed = unmoved && after.is_some_and(|after| event.record.timeline > timeline_of(after));
            self.is_told(&mut reader, event, &filter, &build.ignored, stayed, &current)
        })?;
        if after.is_none() {
            *sent = SentRoom { account_data: sent.account_data, receipts: sent.receipts, ..SentRoom::default() };
        }
        let stretch = Stretch { after, then, window, config: &wanted.config };
        let mut told = SlidingRoom { initial: after.is_none(), ..SlidingRoom::default() };
        told.unstable_expanded_timeline = expanded;
        self.add_timeline(build, &stretch, &mut told)?;
        self.add_state(build, &room, &stretch, sent, &mut told)?;
        let counts = self.unread_counts(build.user(), room.id(), false)?.0;
        let is_dm = case.is_dm().unwrap_or_default();
        let moved = told.initial || sent.counts != counts || sent.is_dm != is_dm;
        sent.counts = counts;
        if told.initial || known.is_some_and(|known| known.is_dm != is_dm) {
            told.is_dm = Some(is_dm);
        }
        let silent = told.timeline.is_empty() && told.required_state.is_empty() && told.joined_count.is_none();
        if silent && !moved && !told.limited && !expanded && told.name.is_none() && told.avatar.is_none() {
            return Ok(None);
        }
        told.notification_count = Some(counts.notification_count);
        told.highlight_count = Some(counts.highlight_count);
        told.bump_stamp = case.bump();
        Ok(Some(told))
    }

    fn add_timeline(&self, build: &Build<'_>, stretch: &Stretch<'_>, told: &mut SlidingRoom) -> Result<(), Error> {
        let window = &stretch.window;
        let device = build.requester.device_id.as_deref();
        let mut reader = Reader::new(build.user());
        for event in &window.events {
            told.timeline.push(self.client_event_to(&mut reader, event, device, false)?);
        }
        let live = build.since.map_or(u64::MAX, timeline_of);
        told.num_live = u64::try_from(window.events.iter().filter(|event| event.record.timeline > live).count()).ok();
        told.limited = window.limited;
        told.prev_batch = window.prev_batch();
        Ok(())
    }

    fn add_state(
        &self,
        build: &Build<'_>,
        room: &Room,
        stretch: &Stretch<'_>,
        sent: &mut SentRoom,
        told: &mut SlidingRoom,
    ) -> Result<(), Error> {
        let end = &stretch.window.state_at_end;
        let changed: Option<BTreeSet<StateKey>> =
            stretch.then.as_ref().map(|then| difference(then, end).into_iter().map(|(key, _)| key).collect());
        let wanted = wanted_state(stretch, changed.as_ref(), sent);
        self.add_pieces(build, end, &wanted, told)?;
        let is_new = |kind: &str| changed.as_ref().is_none_or(|changed| changed.contains(&StateKey::new(kind, "")));
        if is_new("m.room.name") {
            told.name = self.state_text(end, "m.room.name", "name")?.filter(|name| !name.is_empty());
        }
        if is_new("m.room.avatar") {
            let avatar = self.state_text(end, "m.room.avatar", "url")?.filter(|url| !url.is_empty());
            told.avatar = (avatar.is_some() || changed.is_some()).then_some(avatar);
        }
        let members_changed = changed.as_ref().is_none_or(|changed| changed.iter().any(|key| &*key.kind == MEMBER));
        if members_changed || is_new("m.room.name") {
            let faces = self.faces(room.id(), build.to)?;
            told.joined_count = u64::try_from(room.joined().len()).ok();
            told.invited_count = Some(faces.invited);
            if self.state_text(end, "m.room.name", "name")?.is_none_or(|name| name.is_empty()) {
                told.heroes = Some(self.heroes(&faces, end, build.user())?);
            }
        }
        Ok(())
    }

    /// The pieces of the state with these keys are told.
    fn add_pieces<'a>(
        &self,
        build: &Build<'_>,
        state: &StateMap,
        keys: impl IntoIterator<Item = &'a StateKey>,
        told: &mut SlidingRoom,
    ) -> Result<(), Error> {
        let device = build.requester.device_id.as_deref();
        for key in keys {
            if let Some(event) = state.get(key).map(|id| self.load_event(id)).transpose()?.flatten() {
                told.required_state.push(self.client_event_for(&event, build.user(), device, false)?);
            }
        }
        Ok(())
    }

    /// A text in the content of a piece of state with an empty key.
    fn state_text(&self, state: &StateMap, kind: &str, field: &str) -> Result<Option<String>, Error> {
        let Some(id) = find_in(state, kind, "") else { return Ok(None) };
        let content = self.load_event(id)?.map(|event| event.pdu.content_value());
        Ok(content.and_then(|content| content.get(field)?.as_str().map(ToOwned::to_owned)))
    }

    /// An invite or a knock, once.
    fn tell_stripped(self: &Arc<Self>, build: &Build<'_>, case: &Case<'_>) -> Result<Option<SlidingRoom>, Error> {
        let Case { wanted, standing, .. } = *case;
        let ignored = standing.sender.as_ref().is_some_and(|sender| build.ignored.contains(sender));
        if case.is_told() || ignored {
            return Ok(None);
        }
        let knock = standing.membership == Membership::Knock;
        let events = self.stripped_for(build.requester, &wanted.id, knock)?;
        let text = |kind: &str, field: &str| {
            events.iter().filter_map(|event| serde_json::from_str::<Value>(event.get()).ok()).find_map(|event| {
                let fits = event.get("type").and_then(Value::as_str) == Some(kind);
                fits.then(|| event.get("content")?.get(field)?.as_str().map(ToOwned::to_owned)).flatten()
            })
        };
        Ok(Some(SlidingRoom {
            initial: true,
            name: text("m.room.name", "name"),
            avatar: text("m.room.avatar", "url").map(Some),
            is_dm: case.is_dm(),
            bump_stamp: Some(standing.position.0),
            invite_state: Some(events),
            ..SlidingRoom::default()
        }))
    }

    /// A room that the user left or was put out of, up to then.
    fn tell_left(self: &Arc<Self>, build: &Build<'_>, case: &Case<'_>) -> Result<Option<SlidingRoom>, Error> {
        if case.is_told() {
            return Ok(None);
        }
        let Case { wanted, standing, .. } = *case;
        let user = build.user();
        let mut told = SlidingRoom { is_dm: case.is_dm(), bump_stamp: case.bump(), ..SlidingRoom::default() };
        let at = timeline_of(standing.position);
        let row = self.timeline_rows(&wanted.id, at.saturating_sub(1), at.saturating_add(1), Order::Ascending, 1)?;
        if row.is_empty() {
            // An invite refused elsewhere: this server is not in the room.
            let Some(leave) = self.outside_leave(user, &wanted.id)? else { return Ok(None) };
            told.timeline.push(sync_event(&leave, &Unsigned::default()));
            told.required_state.push(sync_event(&leave, &Unsigned::default()));
            return Ok(Some(told));
        }
        let (after, then) = self.joined_before(build, case)?.unzip();
        told.initial = after.is_none();
        let limit = usize::try_from(wanted.config.timeline_limit.max(1)).unwrap_or(usize::MAX);
        let window = self.window(&wanted.id, after, standing.position, limit, |event| {
            Ok((event.pdu.is_state() || !build.ignored.contains(event.pdu.sender()))
                && (Some(event.id()) == standing.event_id.as_deref() || self.can_see_event(user, event)?))
        })?;
        let own = StateKey::new(MEMBER, user.as_str());
        let keys: Vec<StateKey> = match then {
            Some(then) => difference(&then, &window.state_at_end)
                .into_iter()
                .map(|(key, _)| key)
                .filter(|key| *key == own || wanted.config.wants(key))
                .collect(),
            None if self.visible_state(user, &wanted.id).is_ok() => {
                let mut keys = wanted.config.keys_in(&window.state_at_end);
                keys.retain(|key| *key != own);
                keys.push(own);
                keys
            }
            None => vec![own],
        };
        self.add_pieces(build, &window.state_at_end, &keys, &mut told)?;
        let stretch = Stretch { after, then: None, window, config: &wanted.config };
        self.add_timeline(build, &stretch, &mut told)?;
        Ok(Some(told))
    }
}

/// The pieces of state that go with a stretch of a joined room, as they are at its end.
fn wanted_state(
    stretch: &Stretch<'_>,
    changed: Option<&BTreeSet<StateKey>>,
    sent: &mut SentRoom,
) -> BTreeSet<StateKey> {
    let config = stretch.config;
    let end = &stretch.window.state_at_end;
    let mut wanted: BTreeSet<StateKey> = match changed {
        None => config.keys_in(end).into_iter().collect(),
        Some(changed) => {
            // The client could not know of members that changed in a gap.
            let told = |key: &StateKey| {
                config.lazy
                    && &*key.kind == MEMBER
                    && (stretch.window.limited
                        || <&ruma::UserId>::try_from(&*key.key).is_ok_and(|user| sent.members.contains(user)))
            };
            changed.iter().filter(|key| config.wants(key) || told(key)).cloned().collect()
        }
    };
    if stretch.after.is_some() && *sent.config != *config {
        wanted.extend(config.keys_in(end).into_iter().filter(|key| !sent.config.wants(key)));
    }
    if config.lazy {
        let mut needed: BTreeSet<OwnedUserId> = BTreeSet::new();
        for event in &stretch.window.events {
            needed.insert(event.pdu.sender().to_owned());
            if event.pdu.kind() == MEMBER {
                needed.extend(event.pdu.state_key().and_then(|key| OwnedUserId::try_from(key).ok()));
            }
        }
        wanted.extend(
            needed
                .into_iter()
                .filter(|user| !sent.members.contains(user))
                .map(|user| StateKey::new(MEMBER, user.as_str()))
                .filter(|key| end.contains_key(key)),
        );
        if sent.members.len() > MAX_MEMBERS {
            sent.members = imbl::OrdSet::new();
        }
        for key in wanted.iter().filter(|key| &*key.kind == MEMBER) {
            if let Ok(user) = OwnedUserId::try_from(&*key.key) {
                sent.members.insert(user);
            }
        }
    }
    wanted
}

//! Which rooms are in the windows, which of these have something to tell, and the whole answer.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use matron_room::Membership;
use matron_storage::StreamPos;
use ruma::{OwnedRoomId, RoomId, UserId};

use super::{
    answer::{ListAnswer, SlidingAnswer},
    connection::{Position, Told},
    order::{ListedRoom, RoomOrder},
    request::{Filters, Scoped, SlidingRequest},
    required::RoomConfig,
};
use crate::{
    Core, Error, Requester,
    rooms::{UserRoom, members::UserRooms},
    sync::Ignored,
};

/// How one answer comes to be: `(since, to]`.
pub(super) struct Build<'a> {
    pub requester: &'a Requester,
    pub request: &'a SlidingRequest,
    /// What the client knows.
    pub known: &'a Position,
    /// Where it was told up to; `None`: the connection is new.
    pub since: Option<StreamPos>,
    pub to: StreamPos,
    pub ephemeral: u64,
    pub order: RoomOrder,
    pub ignored: Ignored,
    /// The rooms that may have changed; `None`: any.
    pub changed: Option<BTreeSet<OwnedRoomId>>,
}

/// Through what a room is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Through {
    /// A bit for each list.
    pub lists: u64,
    /// Whether it is subscribed to.
    pub subscribed: bool,
}

/// A room in a window.
pub(super) struct Wanted {
    pub id: OwnedRoomId,
    /// Its place in the order; absent for one that was left.
    pub listed: Option<Arc<ListedRoom>>,
    pub through: Through,
    pub config: Arc<RoomConfig>,
}

impl Build<'_> {
    pub(super) fn user(&self) -> &UserId {
        &self.requester.user_id
    }

    pub(super) fn may_have_changed(&self, room: &RoomId) -> bool {
        self.changed.as_ref().is_none_or(|changed| changed.contains(room))
    }

    /// Whether an extension speaks of a room that is wanted through this.
    pub(super) fn covers(&self, scope: &Scoped, room: &RoomId, through: Through) -> bool {
        let by_list = self
            .request
            .lists
            .keys()
            .enumerate()
            .filter(|(index, _)| through.lists & (1 << index) != 0)
            .any(|(_, name)| scope.lists.as_ref().is_none_or(|lists| lists.contains(name)));
        let by_room = through.subscribed
            && scope.rooms.as_ref().is_none_or(|rooms| rooms.iter().any(|it| it == "*" || it == room.as_str()));
        scope.is_on() && (by_list || by_room)
    }
}

impl Filters {
    fn lets_through(&self, room: &ListedRoom, children: Option<&BTreeSet<String>>) -> bool {
        let fits = |wanted: Option<bool>, is: bool| wanted.is_none_or(|wanted| wanted == is);
        let has_tag = |tags: &Vec<String>| tags.iter().any(|tag| room.tags.contains(tag));
        fits(self.is_dm, room.is_dm)
            && fits(self.is_encrypted, room.is_encrypted)
            && fits(self.is_invite, room.membership == Membership::Invite)
            && self.room_types.as_ref().is_none_or(|types| types.contains(&room.room_type))
            && self.not_room_types.as_ref().is_none_or(|types| !types.contains(&room.room_type))
            && self.tags.as_ref().is_none_or(has_tag)
            && !self.not_tags.as_ref().is_some_and(has_tag)
            && children.is_none_or(|children| children.contains(room.id.as_str()))
    }
}

/// Equal wishes are one, so that comparing them costs nothing.
struct Configs<'a> {
    build: &'a Build<'a>,
    before: &'a [Arc<RoomConfig>],
    known: HashMap<(u64, Option<&'a RoomId>), Arc<RoomConfig>>,
    all: Vec<Arc<RoomConfig>>,
}

impl<'a> Configs<'a> {
    fn get(&mut self, lists: u64, subscription: Option<&'a RoomId>) -> Arc<RoomConfig> {
        if let Some(config) = self.known.get(&(lists, subscription)) {
            return Arc::clone(config);
        }
        let mut config = RoomConfig::default();
        let user = self.build.user();
        for (index, list) in self.build.request.lists.values().enumerate() {
            if lists & (1 << index) != 0 {
                config.add(&list.details, user);
            }
        }
        if let Some(details) = subscription.and_then(|room| self.build.request.room_subscriptions.get(room)) {
            config.add(details, user);
        }
        let same = self.before.iter().chain(&self.all).find(|before| ***before == config);
        let config = same.map_or_else(|| Arc::new(config), Arc::clone);
        self.known.insert((lists, subscription), Arc::clone(&config));
        if !self.all.iter().any(|other| Arc::ptr_eq(other, &config)) {
            self.all.push(Arc::clone(&config));
        }
        config
    }
}

impl Core {
    /// The answer as of now, and what the client knows when it has it.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(super) fn build_sliding(
        self: &Arc<Self>,
        requester: &Requester,
        request: &SlidingRequest,
        known: &Position,
    ) -> Result<(SlidingAnswer, Position), Error> {
        // INVARIANT: sampled before anything is read, so that whatever comes later is told next time.
        let ephemeral = self.ephemeral_serial();
        let to = self.position();
        let since = (known.number > 0).then_some(known.stream);
        let order = self.room_order(requester, to)?;
        let changed = since.and_then(|since| self.rooms.changes.rooms_since(since));
        let ignored = self.ignored_users(&requester.user_id)?;
        let mut build = Build { requester, request, known, since, to, ephemeral, order, ignored, changed };
        let mut next = Position { stream: to, ephemeral, standings: self.note_standings(&mut build), ..known.clone() };
        let mut answer = SlidingAnswer::default();
        let wanted = self.select(&build, &mut next, &mut answer)?;
        self.fall_behind(&build, &wanted, &mut next);
        for room in &wanted {
            self.tell_room(&build, room, &mut next, &mut answer)?;
        }
        self.add_extensions(&build, &wanted, &mut next, &mut answer)?;
        Ok((answer, next))
    }

    /// Counts rooms whose standing changed among the changed. Gives the standings to compare with next time.
    fn note_standings(&self, build: &mut Build<'_>) -> std::sync::Weak<UserRooms> {
        let standings = Arc::clone(&build.order.standings);
        let same = Arc::downgrade(&standings);
        if same.ptr_eq(&build.known.standings) {
            return same;
        }
        if let (Some(since), Some(changed)) = (build.since, &mut build.changed) {
            let newer = |standing: &UserRoom| standing.position > since;
            changed.extend(standings.iter().filter(|(_, it)| newer(it)).map(|(room, _)| room.clone()));
        }
        // One that is newer than this answer must be looked at again.
        if standings.values().any(|standing| standing.position > build.to) { std::sync::Weak::new() } else { same }
    }

    /// The rooms in the windows that have something to tell.
    fn select(&self, build: &Build<'_>, next: &mut Position, answer: &mut SlidingAnswer) -> Result<Vec<Wanted>, Error> {
        let mut configs = Configs { build, before: &build.known.configs, known: HashMap::new(), all: Vec::new() };
        let mut wanted = Vec::new();
        let counts = self.each_in_window(build, |room, through, subscription| {
            let config = configs.get(through.lists, subscription);
            if has_news(build, room, through, &config) {
                wanted.push(Wanted { id: room.id.clone(), listed: Some(Arc::clone(room)), through, config });
            }
        })?;
        self.add_left(build, &mut wanted);
        next.configs = configs.all;
        answer.lists =
            build.request.lists.keys().zip(counts).map(|(name, count)| (name.clone(), ListAnswer { count })).collect();
        Ok(wanted)
    }

    /// Visits the rooms in the windows, in order; gives the lengths of the lists.
    fn each_in_window<'a>(
        &self,
        build: &'a Build<'a>,
        mut visit: impl FnMut(&'a Arc<ListedRoom>, Through, Option<&'a RoomId>),
    ) -> Result<Vec<u64>, Error> {
        let lists: Vec<_> = build.request.lists.values().collect();
        let mut children = Vec::with_capacity(lists.len());
        for list in &lists {
            children.push(self.children_of_spaces(build, list.filters.as_ref())?);
        }
        let mut counts = vec![0_u64; lists.len()];
        for room in build.order.rooms.iter() {
            let mut through = Through::default();
            for ((index, list), (count, children)) in lists.iter().enumerate().zip(counts.iter_mut().zip(&children)) {
                let fits = |filters: &Filters| filters.lets_through(room, children.as_ref());
                if list.filters.as_ref().is_none_or(fits) {
                    if list.holds(*count) {
                        through.lists |= 1 << index;
                    }
                    *count = count.saturating_add(1);
                }
            }
            let subscription = build.request.room_subscriptions.get_key_value(&room.id).map(|(id, _)| &**id);
            through.subscribed = subscription.is_some();
            if through != Through::default() {
                visit(room, through, subscription);
            }
        }
        Ok(counts)
    }

    /// The rooms in the windows, and through what they are there.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(super) fn windows(&self, build: &Build<'_>) -> Result<Windows, Error> {
        let mut windows = Windows::default();
        self.each_in_window(build, |room, through, _| {
            windows.insert(room.id.clone(), through);
        })?;
        Ok(windows)
    }

    /// Rooms that the client holds and the user has left since: told wherever they stood.
    fn add_left(&self, build: &Build<'_>, wanted: &mut Vec<Wanted>) {
        let gone = |id: &OwnedRoomId| {
            let standing = build.order.standings.get(id);
            standing.is_none_or(|it| matches!(it.membership, Membership::Leave | Membership::Ban))
        };
        let known = &build.known.rooms;
        let left: Vec<OwnedRoomId> = match &build.changed {
            Some(changed) => changed.iter().filter(|id| known.contains_key(*id) && gone(id)).cloned().collect(),
            None => known.keys().filter(|id| gone(id)).cloned().collect(),
        };
        for id in left {
            if wanted.iter().any(|room| room.id == id) {
                continue;
            }
            let config = known.get(&id).map(|sent| Arc::clone(&sent.config)).unwrap_or_default();
            wanted.push(Wanted { id, listed: None, through: Through::default(), config });
        }
    }

    /// Rooms that changed and are not told now are told from here when they come into a window.
    fn fall_behind(&self, build: &Build<'_>, wanted: &[Wanted], next: &mut Position) {
        let Some(since) = build.since else { return };
        let told: BTreeSet<&RoomId> = wanted.iter().map(|room| &*room.id).collect();
        let behind: Vec<OwnedRoomId> = match &build.changed {
            Some(changed) => changed.iter().filter(|id| !told.contains(&***id)).cloned().collect(),
            None => next.rooms.keys().filter(|id| !told.contains(&***id)).cloned().collect(),
        };
        for id in behind {
            let Some(sent) = next.rooms.get_mut(&id) else { continue };
            let sent = Arc::make_mut(sent);
            sent.room.fall_behind(since);
            sent.receipts.fall_behind(since);
            if build.changed.is_none() {
                sent.account_data.fall_behind(since);
            }
        }
    }

    /// The children of the spaces that a filter names, as far as the user is in these.
    fn children_of_spaces(
        &self,
        build: &Build<'_>,
        filters: Option<&Filters>,
    ) -> Result<Option<BTreeSet<String>>, Error> {
        let Some(spaces) = filters.and_then(|filters| filters.spaces.as_ref()) else { return Ok(None) };
        let mut children = BTreeSet::new();
        for space in spaces {
            let joined = |standing: &UserRoom| standing.membership == Membership::Join;
            if !build.order.standings.get(space).is_some_and(joined) {
                continue;
            }
            let Some(room) = self.find_room(space)? else { continue };
            let state = room.current();
            let from = crate::rooms::StateKey::new("m.space.child", "");
            for (key, id) in state.range(from..).take_while(|(key, _)| &*key.kind == "m.space.child") {
                let event = self.load_event(id)?;
                if event.is_some_and(|event| event.pdu.content_value().get("via").is_some()) {
                    children.insert(key.key.to_string());
                }
            }
        }
        Ok(Some(children))
    }
}

/// Whether there may be something to tell of a room in a window.
fn has_news(build: &Build<'_>, room: &ListedRoom, through: Through, config: &Arc<RoomConfig>) -> bool {
    let Some(sent) = build.known.rooms.get(&room.id) else { return true };
    let extensions = &build.request.extensions;
    let behind = |told: Told, scope: &Scoped| told != Told::Live && build.covers(scope, &room.id, through);
    sent.room != Told::Live
        || sent.is_dm != room.is_dm
        || !Arc::ptr_eq(&sent.config, config)
        || build.may_have_changed(&room.id)
        || behind(sent.account_data, &extensions.account_data)
        || behind(sent.receipts, &extensions.receipts)
}

/// The rooms in the windows, and through what they are there.
pub(super) type Windows = BTreeMap<OwnedRoomId, Through>;

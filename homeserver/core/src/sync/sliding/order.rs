//! A user's rooms, the most recent first, kept in memory and moved by what changed.
//!
//! INVARIANT: an order of position P knows of every change at or below P; it may know of later ones, which are
//! looked at again when they come.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use matron_room::Membership;
use matron_storage::{Order, StreamPos};
use ruma::{OwnedRoomId, RoomId, UserId};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    Core, Error, Requester,
    rooms::{UserRoom, members::UserRooms, state_map::find_in},
    sync::timeline::timeline_of,
};

/// How many events are looked at for one that moves a room up; beyond, the room stands where the last of them stands.
const LOOKED_AT: usize = 64;

/// Events that move a room up. SPEC: MSC4186, "bump_stamp".
const BUMPS: [&str; 7] = [
    "m.room.create",
    "m.room.message",
    "m.room.encrypted",
    "m.sticker",
    "m.call.invite",
    "m.poll.start",
    "m.beacon_info",
];

/// A room in the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ListedRoom {
    /// Which.
    pub id: OwnedRoomId,
    /// Larger is more recent.
    pub bump: u64,
    /// The user's standing.
    pub membership: Membership,
    /// Its type, as its creation says.
    pub room_type: Option<String>,
    /// Whether it is encrypted.
    pub is_encrypted: bool,
    /// Whether the user's account data calls it a direct chat.
    pub is_dm: bool,
    /// The user's tags of it.
    pub tags: Arc<BTreeSet<String>>,
}

/// A user's rooms, the most recent first. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct RoomOrder {
    as_of: StreamPos,
    /// The user's standings that it was made from.
    pub standings: Arc<UserRooms>,
    direct: Arc<BTreeSet<OwnedRoomId>>,
    tags: Arc<BTreeMap<OwnedRoomId, Arc<BTreeSet<String>>>>,
    /// The rooms.
    pub rooms: Arc<Vec<Arc<ListedRoom>>>,
}

#[derive(Deserialize)]
struct Creation {
    #[serde(rename = "type")]
    room_type: Option<String>,
}

/// Whether the room is listed: joined, invited, knocked, or the user was put out and has not forgotten it.
fn is_listed(user: &UserId, standing: &UserRoom) -> bool {
    match standing.membership {
        Membership::Join | Membership::Invite | Membership::Knock => true,
        Membership::Leave | Membership::Ban => {
            !standing.forgotten && standing.sender.as_ref().is_some_and(|sender| sender != user)
        }
    }
}

impl Core {
    /// The user's rooms in order, as of `to` or a little later.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(super) fn room_order(&self, requester: &Requester, to: StreamPos) -> Result<RoomOrder, Error> {
        let user = &requester.user_id;
        let known = self.sync.sliding.orders.lock().get(user).cloned();
        if let Some(known) = known.as_ref().filter(|known| known.as_of >= to) {
            return Ok(known.clone());
        }
        let since = known.as_ref().map(|known| known.as_of);
        let standings = self.user_rooms(user)?;
        let mut order = known.unwrap_or_else(|| RoomOrder {
            as_of: StreamPos(0),
            standings: Arc::default(),
            direct: Arc::default(),
            tags: Arc::default(),
            rooms: Arc::default(),
        });
        let mut stale = self.stale_rooms(user, &mut order, since, &standings)?;
        stale.extend(
            standings
                .iter()
                .filter(|_| !Arc::ptr_eq(&standings, &order.standings))
                .filter(|(room, standing)| order.standings.get(*room) != Some(*standing))
                .map(|(room, _)| room.clone()),
        );
        order.standings = standings;
        self.move_rooms(requester, &mut order, &stale, to)?;
        order.as_of = to;
        let mut orders = self.sync.sliding.orders.lock();
        if orders.peek(user).is_none_or(|kept| kept.as_of < to) {
            orders.put(user.clone(), order.clone());
        }
        Ok(order)
    }

    /// The rooms whose place or filters may have changed since the order was made; account data is taken in.
    fn stale_rooms(
        &self,
        user: &UserId,
        order: &mut RoomOrder,
        since: Option<StreamPos>,
        standings: &UserRooms,
    ) -> Result<BTreeSet<OwnedRoomId>, Error> {
        let mut stale: BTreeSet<OwnedRoomId> = match since.and_then(|since| self.rooms.changes.rooms_since(since)) {
            Some(changed) => changed.into_iter().filter(|room| standings.contains_key(room)).collect(),
            None => standings.keys().cloned().collect(),
        };
        for entry in self.account_data_since(user, since)? {
            let content: Value = serde_json::from_str(entry.content.get()).unwrap_or_default();
            match (entry.room_id, entry.kind.as_str()) {
                (None, "m.direct") => {
                    let lists = content.as_object().into_iter().flat_map(|content| content.values());
                    let rooms = lists.filter_map(Value::as_array).flatten().filter_map(Value::as_str);
                    let direct: BTreeSet<_> = rooms.filter_map(|room| OwnedRoomId::try_from(room).ok()).collect();
                    stale.extend(direct.symmetric_difference(&order.direct).cloned());
                    order.direct = Arc::new(direct);
                }
                (Some(room), "m.tag") => {
                    let tags = content.get("tags").and_then(Value::as_object);
                    let tags = tags.into_iter().flat_map(|tags| tags.keys().cloned()).collect();
                    Arc::make_mut(&mut order.tags).insert(room.clone(), Arc::new(tags));
                    stale.insert(room);
                }
                _ => {}
            }
        }
        Ok(stale)
    }

    /// Puts the stale rooms where they belong now.
    fn move_rooms(
        &self,
        requester: &Requester,
        order: &mut RoomOrder,
        stale: &BTreeSet<OwnedRoomId>,
        to: StreamPos,
    ) -> Result<(), Error> {
        let mut listed = Vec::new();
        for room in stale {
            let Some(standing) = order.standings.get(room).filter(|it| is_listed(&requester.user_id, it)) else {
                continue;
            };
            listed.push(Arc::new(self.listed_room(requester, order, room, standing, to)?));
        }
        if listed.is_empty() && !order.rooms.iter().any(|room| stale.contains(&room.id)) {
            return Ok(());
        }
        let same = |new: &Arc<ListedRoom>| order.rooms.iter().any(|old| old == new);
        if listed.len() == 1 && stale.len() == 1 && listed.iter().all(same) {
            return Ok(());
        }
        let rooms = Arc::make_mut(&mut order.rooms);
        rooms.retain(|room| !stale.contains(&room.id));
        let place = |room: &ListedRoom| (std::cmp::Reverse(room.bump), room.id.clone());
        if listed.len() <= 8 {
            for room in listed {
                let wanted = place(&room);
                let at = rooms.partition_point(|other| place(other) < wanted);
                rooms.insert(at, room);
            }
        } else {
            rooms.extend(listed);
            rooms.sort_by_cached_key(|room| place(room));
        }
        Ok(())
    }

    fn listed_room(
        &self,
        requester: &Requester,
        order: &RoomOrder,
        id: &OwnedRoomId,
        standing: &UserRoom,
        to: StreamPos,
    ) -> Result<ListedRoom, Error> {
        let mut listed = ListedRoom {
            id: id.clone(),
            bump: standing.position.0,
            membership: standing.membership,
            room_type: None,
            is_encrypted: false,
            is_dm: order.direct.contains(id),
            tags: order.tags.get(id).cloned().unwrap_or_default(),
        };
        let room = self.find_room(id)?;
        if let Some(room) = room.filter(|room| room.has_server(&self.server_name)) {
            let mut inner = room.lock();
            listed.is_encrypted = find_in(&inner.current, "m.room.encryption", "").is_some();
            listed.room_type =
                inner.state_content::<Creation>(self, "m.room.create", "")?.and_then(|creation| creation.room_type);
        } else if matches!(standing.membership, Membership::Invite | Membership::Knock) {
            let knock = standing.membership == Membership::Knock;
            for event in self.stripped_for(requester, id, knock)? {
                let Ok(event) = serde_json::from_str::<Value>(event.get()) else { continue };
                match event.get("type").and_then(Value::as_str) {
                    Some("m.room.encryption") => listed.is_encrypted = true,
                    Some("m.room.create") => {
                        let room_type = event.pointer("/content/type").and_then(Value::as_str);
                        listed.room_type = room_type.map(ToOwned::to_owned);
                    }
                    _ => {}
                }
            }
        }
        if standing.membership == Membership::Join
            && let Some(bump) = self.bump_of(id, to)?
        {
            listed.bump = bump;
        }
        Ok(listed)
    }

    /// The position of the last event that moved the room up; `None` before its first event.
    fn bump_of(&self, room: &RoomId, to: StreamPos) -> Result<Option<u64>, Error> {
        let known = self.sync.sliding.bumps.lock().get(room).copied();
        let (since, mut bump) = match known {
            Some((as_of, bump)) if as_of >= to => return Ok(Some(bump)),
            Some((as_of, bump)) => (timeline_of(as_of), Some(bump)),
            None => (1 << 63, None),
        };
        let rows = self.timeline_rows(room, since, timeline_of(to).saturating_add(1), Order::Descending, LOOKED_AT)?;
        let mut oldest = None;
        for row in &rows {
            oldest = Some(row.timeline);
            if self.load_event(&row.event_id)?.is_some_and(|event| BUMPS.contains(&event.pdu.kind())) {
                bump = oldest.map(|timeline| timeline.saturating_sub(1 << 63));
                break;
            }
        }
        let bump = bump.or(oldest.map(|timeline| timeline.saturating_sub(1 << 63)));
        if let Some(bump) = bump {
            let mut bumps = self.sync.sliding.bumps.lock();
            if bumps.peek(room).is_none_or(|(as_of, _)| *as_of < to) {
                bumps.put(room.to_owned(), (to, bump));
            }
        }
        Ok(bump)
    }
}

//! Rooms, as operators see them: how large, how open, never what is said.

use matron_room::Membership;
use matron_storage::{Key, KeyRange, KeyReader, Order, Table};
use ruma::{OwnedRoomId, OwnedUserId, RoomId};
use serde::Serialize;
use serde_json::Value;

use crate::{Core, Error};

/// How many rooms one list looks at.
const MAX_ROOMS: usize = 20_000;

/// A room in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RoomFacts {
    /// Which.
    pub room_id: OwnedRoomId,
    /// Its name.
    pub name: Option<String>,
    /// Its address.
    pub canonical_alias: Option<String>,
    /// How many are in it.
    pub joined_members: usize,
    /// How many of this server are in it.
    pub joined_local_members: usize,
    /// Its version.
    pub version: String,
    /// Who made it.
    pub creator: Option<OwnedUserId>,
    /// The algorithm of its encryption.
    pub encryption: Option<String>,
    /// Whether other servers may join.
    pub federatable: bool,
    /// Whether it is in the directory.
    pub public: bool,
    /// Who may join.
    pub join_rules: Option<String>,
    /// Whether guests may.
    pub guest_access: Option<String>,
    /// Who may read what was before.
    pub history_visibility: Option<String>,
    /// How much state it has.
    pub state_events: usize,
    /// What kind of room.
    pub room_type: Option<String>,
    /// Its topic; in lists left out by tools.
    pub topic: Option<String>,
    /// Its picture.
    pub avatar: Option<String>,
}

/// In which order rooms are listed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RoomOrder {
    /// By name.
    #[default]
    Name,
    /// By address.
    CanonicalAlias,
    /// The largest first.
    JoinedMembers,
    /// Those with most members here first.
    JoinedLocalMembers,
    /// By version.
    Version,
    /// By creator.
    Creator,
    /// By encryption.
    Encryption,
    /// By whether other servers may join.
    Federatable,
    /// By whether they are listed.
    Public,
    /// By join rule.
    JoinRules,
    /// By guest access.
    GuestAccess,
    /// By history visibility.
    HistoryVisibility,
    /// Those with most state first.
    StateEvents,
}

impl RoomOrder {
    /// The order that a tool asks for.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "name" | "alphabetical" => Self::Name,
            "canonical_alias" => Self::CanonicalAlias,
            "joined_members" | "size" => Self::JoinedMembers,
            "joined_local_members" => Self::JoinedLocalMembers,
            "version" => Self::Version,
            "creator" => Self::Creator,
            "encryption" => Self::Encryption,
            "federatable" => Self::Federatable,
            "public" => Self::Public,
            "join_rules" => Self::JoinRules,
            "guest_access" => Self::GuestAccess,
            "history_visibility" => Self::HistoryVisibility,
            "state_events" => Self::StateEvents,
            _ => return None,
        })
    }

    fn sort(self, rooms: &mut [RoomFacts]) {
        use std::cmp::Reverse;
        let text = |text: &Option<String>| (text.is_none(), text.as_deref().unwrap_or_default().to_lowercase());
        match self {
            Self::Name => rooms.sort_by_key(|room| text(&room.name)),
            Self::CanonicalAlias => rooms.sort_by_key(|room| text(&room.canonical_alias)),
            Self::JoinedMembers => rooms.sort_by_key(|room| Reverse(room.joined_members)),
            Self::JoinedLocalMembers => rooms.sort_by_key(|room| Reverse(room.joined_local_members)),
            Self::Version => rooms.sort_by(|one, other| one.version.cmp(&other.version)),
            Self::Creator => rooms.sort_by(|one, other| one.creator.cmp(&other.creator)),
            Self::Encryption => rooms.sort_by_key(|room| text(&room.encryption)),
            Self::Federatable => rooms.sort_by_key(|room| Reverse(room.federatable)),
            Self::Public => rooms.sort_by_key(|room| Reverse(room.public)),
            Self::JoinRules => rooms.sort_by_key(|room| text(&room.join_rules)),
            Self::GuestAccess => rooms.sort_by_key(|room| text(&room.guest_access)),
            Self::HistoryVisibility => rooms.sort_by_key(|room| text(&room.history_visibility)),
            Self::StateEvents => rooms.sort_by_key(|room| Reverse(room.state_events)),
        }
    }
}

/// A page of rooms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoomPage {
    /// The rooms.
    pub rooms: Vec<RoomFacts>,
    /// How many there are in all.
    pub total: usize,
}

impl Core {
    /// A page of the rooms that this server knows; `search` is in the name, the address or is the id. Reads much: not on
    /// a runtime's thread.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn list_rooms(
        &self,
        search: Option<&str>,
        order: RoomOrder,
        backwards: bool,
        from: usize,
        limit: usize,
    ) -> Result<RoomPage, Error> {
        let search = search.map(str::to_lowercase);
        let mut rooms = Vec::new();
        for id in self.all_room_ids()? {
            let facts = self.room_facts(&id)?;
            let found = search.as_ref().is_none_or(|term| {
                let holds =
                    |text: &Option<String>| text.as_ref().is_some_and(|text| text.to_lowercase().contains(term));
                holds(&facts.name) || holds(&facts.canonical_alias) || id.as_str().eq_ignore_ascii_case(term)
            });
            if found {
                rooms.push(facts);
            }
        }
        order.sort(&mut rooms);
        if backwards {
            rooms.reverse();
        }
        let total = rooms.len();
        Ok(RoomPage { rooms: rooms.into_iter().skip(from).take(limit).collect(), total })
    }

    fn all_room_ids(&self) -> Result<Vec<OwnedRoomId>, Error> {
        let mut ids = Vec::new();
        let mut range = KeyRange::all();
        while ids.len() < MAX_ROOMS {
            let rows = self.store.scan(Table::RoomMeta, &range, Order::Ascending, 1_000)?;
            let Some((last, _)) = rows.last() else { break };
            range = range.after(last);
            ids.extend(rows.iter().filter_map(|(key, _)| OwnedRoomId::try_from(KeyReader::new(key).text()?).ok()));
        }
        Ok(ids)
    }

    /// A room, as operators see it.
    ///
    /// # Errors
    /// `M_NOT_FOUND`.
    pub fn room_facts(&self, id: &RoomId) -> Result<RoomFacts, Error> {
        let room = self.open_room(id)?;
        let shown = self.room_as_shown(&room)?;
        let joined = room.joined();
        let mut inner = room.lock();
        let mut text = |kind: &str, field: &str| -> Result<Option<String>, Error> {
            let content: Option<Value> = inner.state_content(self, kind, "")?;
            Ok(content.and_then(|content| content.get(field).and_then(Value::as_str).map(ToOwned::to_owned)))
        };
        let encryption = text("m.room.encryption", "algorithm")?;
        let history_visibility = text("m.room.history_visibility", "history_visibility")?;
        let guest_access = text("m.room.guest_access", "guest_access")?;
        let create = inner.state_pdu(self, "m.room.create", "")?;
        let federatable = create
            .as_ref()
            .is_none_or(|create| create.content_value().get("m.federate").and_then(Value::as_bool).unwrap_or(true));
        let state_events = inner.current.len();
        drop(inner);
        Ok(RoomFacts {
            room_id: id.to_owned(),
            name: shown.name,
            canonical_alias: shown.canonical_alias,
            joined_members: joined.len(),
            joined_local_members: joined.iter().filter(|user| self.is_local_user(user)).count(),
            version: room.version().as_str().to_owned(),
            creator: create.map(|create| create.sender().to_owned()),
            encryption,
            federatable,
            public: self.is_room_listed(id)?,
            join_rules: shown.join_rule,
            guest_access,
            history_visibility,
            state_events,
            room_type: shown.room_type,
            topic: shown.topic,
            avatar: shown.avatar_url,
        })
    }

    /// Whether every user of this server that was in the room has left it.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn is_left_by_all(&self, id: &RoomId) -> Result<bool, Error> {
        let inside = |membership| matches!(membership, Membership::Join | Membership::Invite | Membership::Knock);
        Ok(!self.room_users(id)?.iter().any(|(user, standing)| self.is_local_user(user) && inside(standing.membership)))
    }

    /// How many devices the room's users of this server have.
    ///
    /// # Errors
    /// `M_NOT_FOUND`.
    pub fn local_devices_in(&self, id: &RoomId) -> Result<usize, Error> {
        let mut count = 0_usize;
        for user in self.open_room(id)?.joined().iter().filter(|user| self.is_local_user(user)) {
            let rows = self.store.scan(Table::UserDevice, &Key::new().text(user).prefix(), Order::Ascending, 2_000)?;
            count = count.saturating_add(rows.len());
        }
        Ok(count)
    }
}

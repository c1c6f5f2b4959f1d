//! Who is in which room: the two indexes, and the questions that all of the house asks.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use matron_room::Membership;
use matron_storage::{Key, Order, Row, StreamPos, Table};
use ruma::{OwnedEventId, OwnedRoomId, OwnedServerName, OwnedUserId, RoomId, UserId};
use serde::{Deserialize, Serialize};

use crate::{Core, Error};

/// A user's standing in a room, by room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserRoom {
    /// Where in the stream it last changed.
    pub position: StreamPos,
    /// What it is.
    pub membership: Membership,
    /// The event that says so; absent for an invite or knock of a room that this server is not in.
    pub event_id: Option<OwnedEventId>,
    /// Who sent that event.
    pub sender: Option<OwnedUserId>,
    /// The user asked to forget the room.
    pub forgotten: bool,
}

/// A user's standing in a room, by user; the same facts.
pub type RoomUser = UserRoom;

/// All rooms of a user.
pub type UserRooms = BTreeMap<OwnedRoomId, UserRoom>;

/// What a room's summary is made of, whoever asks.
#[derive(Debug, Default)]
pub(crate) struct Crowd {
    /// How many are invited.
    pub invited: usize,
    /// The first joined or invited users, one more than a summary names: the asker is left out.
    pub present: Vec<OwnedUserId>,
    /// The first who left or were banned, likewise.
    pub gone: Vec<OwnedUserId>,
}

/// How many members' names make up a room's name.
pub(crate) const HEROES: usize = 5;

#[derive(Serialize, Deserialize)]
struct Body {
    m: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    e: Option<OwnedEventId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    s: Option<OwnedUserId>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    f: bool,
}

impl UserRoom {
    /// The stored form; the first eight bytes are the position, filled at commit.
    ///
    /// # Errors
    /// [`Error::Internal`], never in practice.
    pub fn encode(&self) -> Result<Vec<u8>, Error> {
        let mut bytes = self.position.0.to_be_bytes().to_vec();
        bytes.extend(crate::house::to_json(&Body {
            m: self.membership.as_str().to_owned(),
            e: self.event_id.clone(),
            s: self.sender.clone(),
            f: self.forgotten,
        })?);
        Ok(bytes)
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// [`Error::Store`] for anything else.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let corrupt = || Error::Store(matron_storage::StoreError::Corrupt("a membership is unreadable".to_owned()));
        let (position, json) = bytes.split_first_chunk::<8>().ok_or_else(corrupt)?;
        let body: Body = crate::house::from_json(Table::UserRoom, json)?;
        Ok(Self {
            position: StreamPos(u64::from_be_bytes(*position)),
            membership: Membership::parse(&body.m).ok_or_else(corrupt)?,
            event_id: body.e,
            sender: body.s,
            forgotten: body.f,
        })
    }
}

impl Core {
    /// Every room that the user has a standing in, forgotten ones included. Warm users read no disk.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn user_rooms(&self, user: &UserId) -> Result<Arc<UserRooms>, Error> {
        let moving = self.rooms.changes.is_moving(user);
        if let (false, Some(rooms)) = (moving, self.rooms.users.lock().get(user)) {
            return Ok(Arc::clone(rooms));
        }
        let generation = self.rooms.generation();
        let mut rooms = UserRooms::new();
        for (key, value) in self.scan_all(Table::UserRoom, &Key::new().text(user))? {
            if let Some(room) = second_text(&key).and_then(|room| OwnedRoomId::try_from(room).ok()) {
                rooms.insert(room, UserRoom::decode(&value)?);
            }
        }
        let rooms = Arc::new(rooms);
        self.rooms.cache_user(generation, user, &rooms);
        Ok(rooms)
    }

    /// The rooms that the user is joined to.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn joined_rooms(&self, user: &UserId) -> Result<Vec<OwnedRoomId>, Error> {
        Ok(self
            .user_rooms(user)?
            .iter()
            .filter(|(_, standing)| standing.membership == Membership::Join)
            .map(|(room, _)| room.clone())
            .collect())
    }

    /// The user's standing in the room, if there ever was one.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn standing(&self, user: &UserId, room: &RoomId) -> Result<Option<UserRoom>, Error> {
        let moving = self.rooms.changes.is_moving(user);
        if let (false, Some(rooms)) = (moving, self.rooms.users.lock().get(user)) {
            return Ok(rooms.get(room).cloned());
        }
        self.store
            .get(Table::UserRoom, Key::new().text(user).text(room).as_bytes())?
            .map(|bytes| UserRoom::decode(&bytes))
            .transpose()
    }

    /// Whether the user is joined to the room.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn is_joined(&self, user: &UserId, room: &RoomId) -> Result<bool, Error> {
        Ok(self.standing(user, room)?.is_some_and(|standing| standing.membership == Membership::Join))
    }

    /// The joined members of the room; empty if the room is not known.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn joined_members(&self, room: &RoomId) -> Result<Vec<OwnedUserId>, Error> {
        Ok(self.find_room(room)?.map(|room| room.joined().iter().cloned().collect()).unwrap_or_default())
    }

    /// Every user with a standing in the room.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn room_users(&self, room: &RoomId) -> Result<BTreeMap<OwnedUserId, RoomUser>, Error> {
        let mut users = BTreeMap::new();
        for (key, value) in self.scan_all(Table::RoomUser, &Key::new().text(room))? {
            if let Some(user) = second_text(&key).and_then(|user| OwnedUserId::try_from(user).ok()) {
                users.insert(user, UserRoom::decode(&value)?);
            }
        }
        Ok(users)
    }

    /// What the room's summary is made of.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(crate) fn crowd(&self, room: &RoomId) -> Result<Arc<Crowd>, Error> {
        let mark = self.store.mark(Table::RoomUser, Key::new().text(room).as_bytes());
        self.rooms.crowds.get_or_read(&room.to_owned(), mark, || {
            let mut crowd = Crowd::default();
            for (user, standing) in self.room_users(room)? {
                let list = match standing.membership {
                    Membership::Join => &mut crowd.present,
                    Membership::Invite => {
                        crowd.invited = crowd.invited.saturating_add(1);
                        &mut crowd.present
                    }
                    Membership::Leave | Membership::Ban => &mut crowd.gone,
                    Membership::Knock => continue,
                };
                if list.len() <= HEROES {
                    list.push(user);
                }
            }
            Ok(Arc::new(crowd))
        })
    }

    /// The servers with a joined member in the room, ours included if so.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn joined_servers(&self, room: &RoomId) -> Result<BTreeSet<OwnedServerName>, Error> {
        Ok(self.find_room(room)?.map(|room| room.servers()).unwrap_or_default())
    }

    /// Everyone joined to a room that the user is joined to, the user included if in any.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn users_sharing_room(&self, user: &UserId) -> Result<BTreeSet<OwnedUserId>, Error> {
        let mut users = BTreeSet::new();
        for room in self.joined_rooms(user)? {
            users.extend(self.joined_members(&room)?);
        }
        Ok(users)
    }

    /// The servers with a member joined to a room that the user is joined to.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn servers_sharing_room(&self, user: &UserId) -> Result<BTreeSet<OwnedServerName>, Error> {
        let mut servers = BTreeSet::new();
        for room in self.joined_rooms(user)? {
            servers.extend(self.joined_servers(&room)?);
        }
        Ok(servers)
    }

    /// Whether two users are joined to a room in common.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn share_room(&self, one: &UserId, other: &UserId) -> Result<bool, Error> {
        for room in self.joined_rooms(one)? {
            if self.is_joined(other, &room)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Every row whose key begins with `prefix`, page by page.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(crate) fn scan_all(&self, table: Table, prefix: &Key) -> Result<Vec<Row>, Error> {
        let mut range = prefix.prefix();
        let mut rows = Vec::new();
        loop {
            let page = self.store.scan(table, &range, Order::Ascending, matron_storage::MAX_PAGE)?;
            let full = page.len() == matron_storage::MAX_PAGE;
            if let Some((last, _)) = page.last() {
                range = range.after(last);
            }
            rows.extend(page);
            if !full {
                return Ok(rows);
            }
        }
    }
}

fn second_text(key: &[u8]) -> Option<String> {
    let mut reader = matron_storage::KeyReader::new(key);
    reader.text()?;
    reader.text()
}

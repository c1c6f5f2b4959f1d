//! A room in memory: what sending needs, so that a warm room is never read from disk.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use matron_room::{Membership, Pdu, PowerLevels, RoomVersion};
use matron_storage::{Key, Order, StreamPos, Table};
use parking_lot::Mutex;
use ruma::{EventId, OwnedEventId, OwnedRoomId, OwnedServerName, OwnedUserId, RoomId, ServerName, UserId};
use serde::{Deserialize, Serialize};

use super::{
    members::UserRoom,
    state_map::{GroupId, StateMap, find_in},
};
use crate::{Core, Error};

/// How many state events of a room are kept parsed.
const KEPT_STATE: usize = 2048;

/// What never changes of a room.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RoomMeta {
    /// The room version.
    pub version: String,
}

/// Where a room's graph ends: written with each event, and expected by the next, so that two writers can
/// never both win.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The events that no other refers to yet, with their depth.
    pub extremities: Vec<(OwnedEventId, u64)>,
    /// The current state.
    pub group: GroupHex,
}

/// A group id in JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupHex(pub [u8; 16]);

/// What the single writer of a room holds. Reached only through [`Room::lock`].
#[derive(Debug)]
pub struct Inner {
    /// Where the graph ends.
    pub head: Head,
    /// The stored form of `head`; `None` before the first event.
    pub head_bytes: Option<Vec<u8>>,
    /// The current state.
    pub current: StateMap,
    /// Who is joined.
    pub joined: imbl::OrdSet<OwnedUserId>,
    /// How many are joined, by server.
    pub servers: BTreeMap<OwnedServerName, u32>,
    /// State events, parsed.
    pdus: HashMap<OwnedEventId, Pdu>,
    levels: Option<Arc<PowerLevels>>,
    /// The policy in force, as governance made it last.
    pub(crate) policy: Option<Arc<crate::governance::InForce>>,
    /// A write failed: memory is ahead of the store, and the room must be opened anew.
    pub broken: bool,
}

/// An open room. Cheap to share.
#[derive(Debug)]
pub struct Room {
    id: OwnedRoomId,
    version: &'static RoomVersion,
    inner: Mutex<Inner>,
}

impl Room {
    /// A room of which nothing is known but its id and version.
    #[must_use]
    pub fn empty(id: OwnedRoomId, version: &'static RoomVersion) -> Self {
        let inner = Inner {
            head: Head::default(),
            head_bytes: None,
            current: StateMap::new(),
            joined: imbl::OrdSet::new(),
            servers: BTreeMap::new(),
            pdus: HashMap::new(),
            levels: None,
            policy: None,
            broken: false,
        };
        Self { id, version, inner: Mutex::new(inner) }
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> &RoomId {
        &self.id
    }

    /// Its version.
    #[must_use]
    pub fn version(&self) -> &'static RoomVersion {
        self.version
    }

    /// Takes the pen: whoever holds it is the room's only writer. Never held across an await.
    pub fn lock(&self) -> parking_lot::MutexGuard<'_, Inner> {
        self.inner.lock()
    }

    /// Who is joined.
    #[must_use]
    pub fn joined(&self) -> imbl::OrdSet<OwnedUserId> {
        self.lock().joined.clone()
    }

    /// The servers with a joined member.
    #[must_use]
    pub fn servers(&self) -> BTreeSet<OwnedServerName> {
        self.lock().servers.keys().cloned().collect()
    }

    /// Whether this server has a joined member.
    #[must_use]
    pub fn has_server(&self, server: &ServerName) -> bool {
        self.lock().servers.contains_key(server)
    }

    /// The current state.
    #[must_use]
    pub fn current(&self) -> StateMap {
        self.lock().current.clone()
    }

    /// Where the graph ends.
    #[must_use]
    pub fn extremities(&self) -> Vec<OwnedEventId> {
        self.lock().head.extremities.iter().map(|(id, _)| id.clone()).collect()
    }
}

impl Inner {
    /// The current state event of this type and key.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn state_pdu(&mut self, core: &Core, kind: &str, key: &str) -> Result<Option<Pdu>, Error> {
        let Some(id) = find_in(&self.current, kind, key).cloned() else { return Ok(None) };
        if let Some(pdu) = self.pdus.get(&**id) {
            return Ok(Some(pdu.clone()));
        }
        let Some(event) = core.load_event(&id)? else { return Ok(None) };
        // What dies is read anew each time.
        if event.record.expires_ms == 0 {
            self.keep_pdu(event.pdu.clone());
        }
        Ok(Some(event.pdu.clone()))
    }

    /// Keeps a state event parsed.
    pub fn keep_pdu(&mut self, pdu: Pdu) {
        if self.pdus.len() >= KEPT_STATE {
            self.pdus.clear();
        }
        self.pdus.insert(pdu.event_id().to_owned(), pdu);
    }

    /// Forgets the parsed form of an event that was redacted.
    pub fn drop_pdu(&mut self, id: &EventId) {
        self.pdus.remove(id);
        self.levels = None;
    }

    /// The content of the current state event of this type and key, read as `T`; `None` if there is none or it has another shape.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn state_content<T: serde::de::DeserializeOwned>(
        &mut self,
        core: &Core,
        kind: &str,
        key: &str,
    ) -> Result<Option<T>, Error> {
        Ok(self.state_pdu(core, kind, key)?.and_then(|pdu| pdu.content_as::<T>().ok()))
    }

    /// The current power levels.
    ///
    /// # Errors
    /// [`Error::Store`]; [`Error::NotFound`] for a room without a create event.
    pub fn power_levels(&mut self, core: &Core) -> Result<Arc<PowerLevels>, Error> {
        if let Some(levels) = &self.levels {
            return Ok(Arc::clone(levels));
        }
        let create =
            self.state_pdu(core, "m.room.create", "")?.ok_or_else(|| Error::not_found("this room is not known"))?;
        let levels = Arc::new(PowerLevels::from(&create, self.state_pdu(core, "m.room.power_levels", "")?.as_ref()));
        self.levels = Some(Arc::clone(&levels));
        Ok(levels)
    }

    /// The user's membership as the current state says; `Leave` if it says nothing.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn membership(&mut self, core: &Core, user: &UserId) -> Result<Membership, Error> {
        if self.joined.contains(user) {
            return Ok(Membership::Join);
        }
        Ok(self
            .state_pdu(core, "m.room.member", user.as_str())?
            .and_then(|pdu| pdu.membership_state())
            .unwrap_or(Membership::Leave))
    }

    /// Puts `after` in place as the current state; what was derived from the old one is forgotten.
    pub fn set_current(&mut self, after: StateMap) {
        self.current = after;
        self.levels = None;
    }

    /// Counts a user in or out.
    pub fn set_joined(&mut self, user: &UserId, joined: bool) {
        let server = user.server_name().to_owned();
        if joined {
            if self.joined.insert(user.to_owned()).is_none() {
                let count = self.servers.entry(server).or_insert(0);
                *count = count.saturating_add(1);
            }
        } else if self.joined.remove(user).is_some()
            && let Some(count) = self.servers.get_mut(&server)
        {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.servers.remove(&server);
            }
        }
    }
}

impl Core {
    /// The room, open; `None` if this server knows nothing of it.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn find_room(&self, id: &RoomId) -> Result<Option<Arc<Room>>, Error> {
        if let Some(room) = self.rooms.opened(id) {
            if !room.lock().broken {
                return Ok(Some(room));
            }
            self.rooms.close(id);
        }
        let Some(meta) = self.load::<RoomMeta>(Table::RoomMeta, &Key::new().text(id))? else { return Ok(None) };
        let version = RoomVersion::find(&meta.version).ok_or_else(|| {
            Error::Store(matron_storage::StoreError::Corrupt("a room has a version that is not known".to_owned()))
        })?;
        let room = Room::empty(id.to_owned(), version);
        {
            let mut inner = room.lock();
            if let Some(bytes) = self.store.get(Table::RoomExtremity, Key::new().text(id).as_bytes())? {
                inner.head = crate::house::from_json(Table::RoomExtremity, &bytes)?;
                inner.head_bytes = Some(bytes);
            }
            inner.current = self.load_state_group(GroupId(inner.head.group.0))?;
            for (key, value) in self.scan_all(Table::RoomUser, &Key::new().text(id))? {
                if UserRoom::decode(&value)?.membership != Membership::Join {
                    continue;
                }
                let mut reader = matron_storage::KeyReader::new(&key);
                reader.text();
                if let Some(Ok(user)) = reader.text().map(OwnedUserId::try_from) {
                    inner.set_joined(&user, true);
                }
            }
        }
        Ok(Some(self.rooms.keep_open(Arc::new(room))))
    }

    /// The room, open.
    ///
    /// # Errors
    /// [`Error::NotFound`] if this server knows nothing of it.
    pub fn open_room(&self, id: &RoomId) -> Result<Arc<Room>, Error> {
        self.find_room(id)?.ok_or_else(|| Error::not_found("this room is not known"))
    }

    /// The position of the last event in the room's timeline; zero if there is none.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn last_position(&self, room: &RoomId) -> Result<StreamPos, Error> {
        let prefix = Key::new().text(room);
        let page = self.store.scan(Table::RoomTimeline, &prefix.prefix(), Order::Descending, 1)?;
        Ok(page
            .first()
            .and_then(|(key, _)| key.get(prefix.as_bytes().len()..)?.first_chunk::<8>().copied())
            .map(|bytes| StreamPos(u64::from_be_bytes(bytes).saturating_sub(1 << 63)))
            .unwrap_or_default())
    }
}

//! The directory of public rooms (Client-Server API, "Listing rooms").

use std::{cmp::Reverse, collections::BTreeSet};

use matron_room::{HistoryVisibility, JoinRule};
use matron_storage::{Batch, Key, KeyReader, Table};
use ruma::{OwnedRoomId, OwnedServerName, OwnedUserId, RoomId, UserId};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Room;
use crate::{Core, Error, Requester};

/// The most rooms on one page.
const MAX_PAGE: u64 = 500;
/// Rooms on a page if the client names no limit.
const DEFAULT_PAGE: u64 = 100;

/// What a client, or another server, asks.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct PublicRoomsRequest {
    /// At most so many.
    pub limit: Option<u64>,
    /// Where to go on.
    pub since: Option<String>,
    /// Which rooms.
    pub filter: PublicRoomsFilter,
    /// Rooms of all networks.
    pub include_all_networks: bool,
    /// Rooms of this network only.
    pub third_party_instance_id: Option<String>,
    /// Whose rooms; for clients only.
    pub server: Option<OwnedServerName>,
    /// The user who looks, if one of ours: rooms with a policy are listed for those alone whom it would let in.
    #[serde(skip)]
    pub viewer: Option<OwnedUserId>,
}

/// Which rooms.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct PublicRoomsFilter {
    /// In the name, the topic or the canonical alias.
    pub generic_search_term: Option<String>,
    /// Of these types; null: rooms without a type.
    pub room_types: Option<Vec<Option<String>>>,
}

/// A page of the directory.
#[derive(Clone, Debug, Default, Serialize)]
pub struct PublicRooms {
    /// The rooms, most members first.
    pub chunk: Vec<PublicRoom>,
    /// Where to go on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_batch: Option<String>,
    /// Where to go back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prev_batch: Option<String>,
    /// How many there are in all.
    pub total_room_count_estimate: u64,
}

/// What a room shows of itself to those outside.
#[derive(Clone, Debug, Serialize)]
pub struct PublicRoom {
    /// The room.
    pub room_id: OwnedRoomId,
    /// How many are joined.
    pub num_joined_members: u64,
    /// Whether anyone may read it.
    pub world_readable: bool,
    /// Whether guests may join.
    pub guest_can_join: bool,
    /// Who may join.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub join_rule: Option<String>,
    /// The name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The topic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// The avatar.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub avatar_url: Option<String>,
    /// The alias to show.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canonical_alias: Option<String>,
    /// Its type, as the create event says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub room_type: Option<String>,
}

impl PublicRoom {
    fn rank(&self) -> (Reverse<u64>, &RoomId) {
        (Reverse(self.num_joined_members), &self.room_id)
    }
}

/// A row of `room_public`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct PublicRow {
    /// In the server's own list.
    listed: bool,
    /// In the lists of these networks of application services.
    networks: BTreeSet<String>,
}

/// A place in the list: before or after a room of this size and id.
struct Place {
    forward: bool,
    members: u64,
    room: String,
}

impl Place {
    fn parse(token: &str) -> Result<Self, Error> {
        let malformed = || Error::invalid("this is not a token of this server");
        let (direction, rest) = token.split_at_checked(1).ok_or_else(malformed)?;
        let (members, room) = rest.split_once('_').ok_or_else(malformed)?;
        let forward = match direction {
            "n" => true,
            "p" => false,
            _ => return Err(malformed()),
        };
        Ok(Self { forward, members: members.parse().map_err(|_| malformed())?, room: room.to_owned() })
    }

    fn token(direction: &str, room: &PublicRoom) -> String {
        format!("{direction}{}_{}", room.num_joined_members, room.room_id)
    }

    fn rank(&self) -> (Reverse<u64>, &str) {
        (Reverse(self.members), &self.room)
    }
}

impl Core {
    /// A page of this server's directory, or of another server's.
    ///
    /// # Errors
    /// [`Error::InvalidParam`] for a token that is none; [`Error::Peer`].
    pub async fn public_rooms(&self, request: PublicRoomsRequest) -> Result<Value, Error> {
        match &request.server {
            Some(server) if !self.is_local(server) => {
                let mut body = json!({
                    "filter": {
                        "generic_search_term": request.filter.generic_search_term,
                        "room_types": request.filter.room_types,
                    },
                    "include_all_networks": request.include_all_networks,
                    "limit": request.limit,
                    "since": request.since,
                    "third_party_instance_id": request.third_party_instance_id,
                });
                drop_nulls(&mut body);
                self.federation_public_rooms(server, body).await
            }
            _ => {
                let page = self.local_public_rooms(&request)?;
                serde_json::to_value(page).map_err(|error| Error::internal(error.to_string()))
            }
        }
    }

    /// A page of this server's directory.
    ///
    /// # Errors
    /// [`Error::InvalidParam`] for a token that is none, and for one network together with all.
    pub fn local_public_rooms(&self, request: &PublicRoomsRequest) -> Result<PublicRooms, Error> {
        if request.include_all_networks && request.third_party_instance_id.is_some() {
            return Err(Error::invalid("rooms of one network and of all cannot be asked for together"));
        }
        let from = request.since.as_deref().filter(|since| !since.is_empty()).map(Place::parse).transpose()?;
        let mut rooms = Vec::new();
        for (key, value) in self.scan_all(Table::RoomPublic, &Key::new())? {
            let row: PublicRow = crate::house::from_json(Table::RoomPublic, &value)?;
            let wanted = match &request.third_party_instance_id {
                Some(network) => row.networks.contains(network),
                None => row.listed || (request.include_all_networks && !row.networks.is_empty()),
            };
            let room_id = KeyReader::new(&key).text().and_then(|room| OwnedRoomId::try_from(room).ok());
            let (true, Some(room_id)) = (wanted, room_id) else { continue };
            let Some(room) = self.find_room(&room_id)? else { continue };
            if !self.policy_lets_preview(request.viewer.as_deref(), &room)? {
                continue;
            }
            let shown = self.room_as_shown(&room)?;
            if shown.num_joined_members > 0 && matches(&request.filter, &shown) {
                rooms.push(shown);
            }
        }
        rooms.sort_by(|one, other| one.rank().cmp(&other.rank()));
        Ok(page_of(rooms, from.as_ref(), request.limit))
    }

    /// What the room shows of itself to those outside.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn room_as_shown(&self, room: &Room) -> Result<PublicRoom, Error> {
        let mut inner = room.lock();
        let is_governed = self.is_governed(&inner.current);
        let mut text = |kind: &str, field: &str| -> Result<Option<String>, Error> {
            let content: Option<Value> = inner.state_content(self, kind, "")?;
            Ok(content
                .and_then(|content| content.get(field).and_then(Value::as_str).map(ToOwned::to_owned))
                .filter(|text| !text.is_empty()))
        };
        let history = text("m.room.history_visibility", "history_visibility")?;
        let guests = text("m.room.guest_access", "guest_access")?;
        Ok(PublicRoom {
            room_id: room.id().to_owned(),
            world_readable: !is_governed
                && history.as_deref().and_then(HistoryVisibility::parse) == Some(HistoryVisibility::WorldReadable),
            guest_can_join: !is_governed && guests.as_deref() == Some("can_join"),
            join_rule: text("m.room.join_rules", "join_rule")?.filter(|rule| JoinRule::parse(rule).is_some()),
            name: text("m.room.name", "name")?,
            topic: text("m.room.topic", "topic")?,
            avatar_url: text("m.room.avatar", "url")?,
            canonical_alias: text("m.room.canonical_alias", "alias")?,
            room_type: text("m.room.create", "type")?,
            num_joined_members: u64::try_from(inner.joined.len()).unwrap_or(u64::MAX),
        })
    }

    /// Whether the user may publish rooms in the directory at all.
    ///
    /// # Errors
    /// [`Error::Forbidden`] if not.
    pub(crate) fn check_may_publish(&self, user: &UserId) -> Result<(), Error> {
        let trusted = self.settings.anyone_may_publish
            || self.settings.policy.officers.iter().any(|officer| officer == user.as_str())
            || self.account(user)?.is_some_and(|account| account.admin);
        if trusted { Ok(()) } else { Err(Error::forbidden("only operators publish rooms in this server's directory")) }
    }

    /// The room is in the directory of public rooms, or no longer.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn publish_room(&self, room: &RoomId, listed: bool) -> Result<(), Error> {
        self.update_listing(room, |row| row.listed = listed).await
    }

    /// The room is in the directory of public rooms, or no longer, as the user wants.
    ///
    /// # Errors
    /// [`Error::NotFound`] for an unknown room; [`Error::Forbidden`] for a user who may not name the room, or may not publish.
    pub async fn set_room_listed(&self, requester: &Requester, room: &RoomId, listed: bool) -> Result<(), Error> {
        self.open_room(room)?;
        if !requester.is_admin && !self.may_name_room(&requester.user_id, room)? {
            return Err(Error::forbidden("you may not publish this room"));
        }
        if listed {
            self.check_may_publish(&requester.user_id)?;
        }
        self.publish_room(room, listed).await
    }

    /// The room is in the list of a network of the application service, or no longer.
    ///
    /// # Errors
    /// [`Error::Forbidden`] for anyone but an application service; [`Error::NotFound`] for an unknown room.
    pub async fn set_room_listed_in_network(
        &self,
        requester: &Requester,
        network: &str,
        room: &RoomId,
        listed: bool,
    ) -> Result<(), Error> {
        let Some(service) = &requester.appservice else {
            return Err(Error::forbidden("only an application service has lists of its networks"));
        };
        self.open_room(room)?;
        let network = format!("{service}|{network}");
        if network.len() > 255 {
            return Err(Error::invalid("the network's name is too long"));
        }
        self.update_listing(room, |row| {
            if listed {
                row.networks.insert(network);
            } else {
                row.networks.remove(&network);
            }
        })
        .await
    }

    /// Whether the room is in the directory.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn is_room_listed(&self, room: &RoomId) -> Result<bool, Error> {
        Ok(self.load::<PublicRow>(Table::RoomPublic, &Key::new().text(room))?.is_some_and(|row| row.listed))
    }

    async fn update_listing(&self, room: &RoomId, change: impl FnOnce(&mut PublicRow)) -> Result<(), Error> {
        let key = Key::new().text(room);
        let mut row: PublicRow = self.load(Table::RoomPublic, &key)?.unwrap_or_default();
        change(&mut row);
        let mut batch = Batch::new();
        if !row.listed && row.networks.is_empty() {
            batch.delete(Table::RoomPublic, key);
        } else {
            batch.put(Table::RoomPublic, key, crate::house::to_json(&row)?);
        }
        self.commit(batch).await.map(drop)
    }
}

fn matches(filter: &PublicRoomsFilter, room: &PublicRoom) -> bool {
    let type_fits = filter.room_types.as_ref().is_none_or(|types| types.contains(&room.room_type));
    let term = filter.generic_search_term.as_deref().unwrap_or_default().to_lowercase();
    type_fits
        && (term.is_empty()
            || [&room.name, &room.topic, &room.canonical_alias]
                .into_iter()
                .flatten()
                .any(|text| text.to_lowercase().contains(&term)))
}

fn page_of(rooms: Vec<PublicRoom>, from: Option<&Place>, limit: Option<u64>) -> PublicRooms {
    // SPEC: v1.19 Server-Server API, `GET /publicRooms`: 0 names no limit.
    let limit = limit.filter(|limit| *limit > 0).unwrap_or(DEFAULT_PAGE);
    let limit = usize::try_from(limit.min(MAX_PAGE)).unwrap_or(usize::MAX);
    let total = rooms.len();
    let is_before =
        |room: &PublicRoom, place: &Place| (Reverse(room.num_joined_members), room.room_id.as_str()) < place.rank();
    let start = match from {
        None => 0,
        Some(place) if place.forward => rooms
            .iter()
            .position(|room| !is_before(room, place) && room.room_id.as_str() != place.room)
            .unwrap_or(total),
        Some(place) => rooms.iter().filter(|room| is_before(room, place)).count().saturating_sub(limit),
    };
    let end = start.saturating_add(limit).min(total);
    let chunk: Vec<PublicRoom> = rooms.into_iter().skip(start).take(limit).collect();
    PublicRooms {
        next_batch: chunk.last().filter(|_| end < total).map(|room| Place::token("n", room)),
        prev_batch: chunk.first().filter(|_| start > 0).map(|room| Place::token("p", room)),
        total_room_count_estimate: u64::try_from(total).unwrap_or(u64::MAX),
        chunk,
    }
}

fn drop_nulls(value: &mut Value) {
    if let Value::Object(map) = value {
        map.retain(|_, value| !value.is_null());
        map.values_mut().for_each(drop_nulls);
    }
}

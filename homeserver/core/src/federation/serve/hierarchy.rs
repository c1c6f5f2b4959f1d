//! `GET /hierarchy/{roomId}`: a space and the rooms in it, as far as users of the asking server could read or join them.

use std::sync::Arc;

use matron_room::{JoinRule, Membership};
use ruma::{OwnedRoomId, OwnedServerName, RoomId, ServerName, UserId};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    Core, Error,
    federation::client::server_names,
    rooms::{Room, join_rules::JoinRules, public::PublicRoom},
};

/// How many rooms of one space are told.
const MAX_CHILDREN: usize = 100;
/// The longest `order` that counts (Client-Server API, "Ordering of children within a space").
const MAX_ORDER_BYTES: usize = 50;

/// The answer to `GET /hierarchy`.
#[derive(Debug, Serialize)]
pub struct Hierarchy {
    /// The room that was asked for.
    pub room: HierarchyRoom,
    /// Rooms in it that users of the server could read or join.
    pub children: Vec<HierarchyRoom>,
    /// Rooms in it that they could not.
    pub inaccessible_children: Vec<OwnedRoomId>,
}

/// What a room shows of itself in a space.
#[derive(Debug, Serialize)]
pub struct HierarchyRoom {
    /// As in the directory.
    #[serde(flatten)]
    pub shown: PublicRoom,
    /// Rooms whose members may join, if the rules say so now.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allowed_room_ids: Vec<OwnedRoomId>,
    /// The algorithm, if it is encrypted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encryption: Option<String>,
    /// Its version.
    pub room_version: &'static str,
    /// The children of a space, in stripped form with their time; none of any other room.
    pub children_state: Vec<Value>,
}

/// What `m.space.child` says of a child; what has another form is not said.
pub(crate) struct ChildContent {
    /// Servers that know the room.
    pub(crate) via: Vec<OwnedServerName>,
    suggested: bool,
    order: Option<String>,
}

impl ChildContent {
    /// What the content says; nothing, if it names no server: then the room is no child.
    pub(crate) fn read(content: &Value) -> Option<Self> {
        let via = server_names(content.get("via")?.as_array()?);
        let order = content
            .get("order")
            .and_then(Value::as_str)
            .filter(|order| order.len() <= MAX_ORDER_BYTES && order.bytes().all(|byte| (0x20..=0x7e).contains(&byte)));
        let suggested = content.get("suggested").and_then(Value::as_bool).unwrap_or(false);
        (!via.is_empty()).then(|| Self { via, suggested, order: order.map(str::to_owned) })
    }
}

#[derive(Deserialize)]
struct Encryption {
    algorithm: String,
}

/// A child of a space.
pub(crate) struct Child {
    room_id: OwnedRoomId,
    rank: (bool, String, u64, OwnedRoomId),
    stripped: Value,
}

impl Core {
    /// The space and the rooms in it.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a room that this server is not in, or that no user of the asking server could read or join.
    pub fn serve_hierarchy(
        &self,
        server: &ServerName,
        room_id: &RoomId,
        suggested_only: bool,
    ) -> Result<Hierarchy, Error> {
        let unknown = || Error::not_found("this room is not known, or not open to your server");
        let room = self.room_for_peer(server, room_id).map_err(|error| match error {
            Error::Forbidden(_) => unknown(),
            error => error,
        })?;
        if !self.is_open_to(server, &room)? {
            return Err(unknown());
        }
        let children = self.children_of(&room, suggested_only)?;
        let mut answer = Hierarchy {
            room: self.hierarchy_room(&room, &children)?,
            children: Vec::new(),
            inaccessible_children: Vec::new(),
        };
        for child in children {
            let Some(room) = self.room_of_ours(&child.room_id)? else { continue };
            if self.check_server_acl(&room, server).is_ok() && self.is_open_to(server, &room)? {
                let grandchildren = self.children_of(&room, suggested_only)?;
                answer.children.push(self.hierarchy_room(&room, &grandchildren)?);
            } else {
                answer.inaccessible_children.push(child.room_id);
            }
        }
        Ok(answer)
    }

    /// Whether a user of the server could read or join the room.
    fn is_open_to(&self, server: &ServerName, room: &Arc<Room>) -> Result<bool, Error> {
        if room.has_server(server) {
            return Ok(true);
        }
        let (rules, members) = {
            let mut inner = room.lock();
            if self.servers_within(&mut inner, std::iter::once(server))?.is_empty() {
                return Ok(false);
            }
            let rules: Option<JoinRules> = inner.state_content(self, "m.room.join_rules", "")?;
            (rules, inner.current.clone())
        };
        if self.room_as_shown(room)?.world_readable {
            return Ok(true);
        }
        match rules.as_ref().and_then(|rules| rules.rule) {
            Some(JoinRule::Public | JoinRule::Knock | JoinRule::KnockRestricted) => return Ok(true),
            Some(JoinRule::Restricted) => {
                for allowed in rules.iter().flat_map(JoinRules::allowed_rooms) {
                    if self.find_room(allowed)?.is_some_and(|room| room.has_server(server)) {
                        return Ok(true);
                    }
                }
            }
            Some(JoinRule::Invite | JoinRule::Private) | None => {}
        }
        // Invited users of the server may come too.
        for (key, _) in members.iter().filter(|(key, _)| &*key.kind == "m.room.member") {
            let Ok(user) = <&UserId>::try_from(&*key.key) else { continue };
            if user.server_name() == server && self.membership_in(&members, user)? == Membership::Invite {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn is_space(&self, room: &Room) -> Result<bool, Error> {
        let create: Option<Value> = room.lock().state_content(self, "m.room.create", "")?;
        Ok(create.is_some_and(|create| create.get("type").and_then(Value::as_str) == Some("m.space")))
    }

    /// The children that the room names, in their order; none unless it is a space.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(crate) fn children_of(&self, room: &Room, suggested_only: bool) -> Result<Vec<Child>, Error> {
        if !self.is_space(room)? {
            return Ok(Vec::new());
        }
        let state = room.current();
        let ids = state.iter().filter(|(key, _)| &*key.kind == "m.space.child").map(|(_, id)| &***id);
        let mut children = Vec::new();
        for event in self.load_events(ids)? {
            let room_id = event.pdu.state_key().and_then(|key| OwnedRoomId::try_from(key).ok());
            let said = event.pdu.content_value();
            let (Some(room_id), Some(content)) = (room_id, ChildContent::read(&said)) else { continue };
            if suggested_only && !content.suggested {
                continue;
            }
            let ts = event.pdu.origin_server_ts_ms();
            let order = content.order;
            children.push(Child {
                rank: (order.is_none(), order.unwrap_or_default(), ts, room_id.clone()),
                stripped: json!({
                    "type": "m.space.child",
                    "state_key": room_id,
                    "sender": event.pdu.sender(),
                    "content": said,
                    "origin_server_ts": ts,
                }),
                room_id,
            });
        }
        children.sort_by(|one, other| one.rank.cmp(&other.rank));
        children.truncate(MAX_CHILDREN);
        Ok(children)
    }

    pub(crate) fn hierarchy_room(&self, room: &Room, children: &[Child]) -> Result<HierarchyRoom, Error> {
        let shown = self.room_as_shown(room)?;
        let mut inner = room.lock();
        let rules: Option<JoinRules> = inner.state_content(self, "m.room.join_rules", "")?;
        let encryption: Option<Encryption> = inner.state_content(self, "m.room.encryption", "")?;
        Ok(HierarchyRoom {
            shown,
            allowed_room_ids: rules.iter().flat_map(JoinRules::allowed_rooms).cloned().collect(),
            encryption: encryption.map(|encryption| encryption.algorithm),
            room_version: room.version().as_str(),
            children_state: children.iter().map(|child| child.stripped.clone()).collect(),
        })
    }
}

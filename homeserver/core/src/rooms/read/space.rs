//! What a user may know of a room before joining it: its summary, and the rooms of a space.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use matron_room::{JoinRule, Membership};
use ruma::{OwnedRoomId, OwnedServerName, RoomId, UserId};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    Core, Error,
    federation::serve::ChildContent,
    rooms::{Room, join_rules::JoinRules},
};

/// The most rooms on one page.
const MAX_LIMIT: usize = 50;
/// How many rooms one walk visits.
const MAX_VISITED: usize = 1_000;
/// How many questions to other servers one walk may cost.
const MAX_ASKED: usize = 20;
/// How deep a walk goes if the client names no depth.
const MAX_DEPTH: u64 = 20;

/// What a client asks of a space.
#[derive(Clone, Debug, Default)]
pub struct SpaceRequest {
    /// Only rooms that the space recommends.
    pub suggested_only: bool,
    /// At most so many.
    pub limit: Option<u64>,
    /// So deep.
    pub max_depth: Option<u64>,
    /// Where to go on.
    pub from: Option<String>,
}

/// A page of the rooms of a space.
#[derive(Debug, Serialize)]
pub struct SpacePage {
    /// The rooms, the space first.
    pub rooms: Vec<Value>,
    /// Where to go on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_batch: Option<String>,
}

/// A child as a room names it.
struct ChildState {
    room_id: OwnedRoomId,
    via: Vec<OwnedServerName>,
}

/// A walk through a space.
struct Walk<'a> {
    core: &'a Core,
    user: &'a UserId,
    suggested_only: bool,
    asked: usize,
    /// What other servers told on the way.
    told: HashMap<OwnedRoomId, Value>,
    /// Rooms of which they told that this server's users can neither read nor join them.
    closed: BTreeSet<OwnedRoomId>,
}

impl Core {
    /// What the user may know of the room.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a room that is unknown or closed to the user.
    pub async fn room_summary(
        self: &Arc<Self>,
        user: Option<&UserId>,
        room_id: &RoomId,
        via: &[OwnedServerName],
    ) -> Result<Value, Error> {
        let unknown = || Error::not_found("this room is not known, or not open to you");
        let standing = match user {
            Some(user) => self.standing(user, room_id)?.filter(|standing| !standing.forgotten),
            None => None,
        };
        let room = self.find_room(room_id)?.filter(|room| room.has_server(&self.server_name));
        let mut summary = match room {
            Some(room) => {
                if !self.may_preview(user, &room)? {
                    return Err(unknown());
                }
                self.space_room(&room, false)?
            }
            None => self.remote_summary(user, room_id, via).await?.ok_or_else(unknown)?,
        };
        if let Value::Object(summary) = &mut summary {
            summary.remove("children_state");
            if user.is_some() {
                let membership = standing.map_or(Membership::Leave, |standing| standing.membership);
                summary.insert("membership".to_owned(), json!(membership.as_str()));
            }
        }
        Ok(summary)
    }

    async fn remote_summary(
        &self,
        user: Option<&UserId>,
        room_id: &RoomId,
        via: &[OwnedServerName],
    ) -> Result<Option<Value>, Error> {
        if !self.settings.federation || user.is_none() {
            return Ok(None);
        }
        for server in self.candidate_servers(room_id, via, None).into_iter().take(3) {
            let Ok(answer) = self.remote_hierarchy(&server, room_id, false).await else { continue };
            if let Some(room) = answer.get("room").filter(|room| names(room, room_id)) {
                let open = match user {
                    Some(user) => self.may_preview_told(user, room)?,
                    None => false,
                };
                return Ok(open.then(|| room.clone()));
            }
        }
        Ok(None)
    }

    /// Whether the user may know of the room: a member or one invited, or the room lets such a user read or join.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(crate) fn may_preview(&self, user: Option<&UserId>, room: &Room) -> Result<bool, Error> {
        let (rules, membership) = {
            let mut inner = room.lock();
            let rules: Option<JoinRules> = inner.state_content(self, "m.room.join_rules", "")?;
            let membership = match user {
                Some(user) => inner.membership(self, user)?,
                None => Membership::Leave,
            };
            (rules.unwrap_or_default(), membership)
        };
        match membership {
            Membership::Join | Membership::Invite | Membership::Knock => return Ok(true),
            Membership::Ban => return Ok(false),
            Membership::Leave => {}
        }
        if !self.policy_lets_preview(user, room)? {
            return Ok(false);
        }
        if self.room_as_shown(room)?.world_readable {
            return Ok(true);
        }
        match rules.rule {
            Some(JoinRule::Public | JoinRule::Knock | JoinRule::KnockRestricted) => Ok(true),
            Some(JoinRule::Restricted) => {
                let Some(user) = user else { return Ok(false) };
                for allowed in rules.allowed_rooms() {
                    if self.is_joined(user, allowed)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            Some(JoinRule::Invite | JoinRule::Private) | None => Ok(false),
        }
    }

    /// As [`Core::may_preview`], of a room that another server tells of.
    fn may_preview_told(&self, user: &UserId, room: &Value) -> Result<bool, Error> {
        let text = |field: &str| room.get(field).and_then(Value::as_str);
        if room.get("world_readable").and_then(Value::as_bool) == Some(true) {
            return Ok(true);
        }
        // SPEC: v1.19, `join_rule` in summaries: absent means public.
        if matches!(text("join_rule"), None | Some("public" | "knock" | "knock_restricted")) {
            return Ok(true);
        }
        let allowed = room.get("allowed_room_ids").and_then(Value::as_array);
        for room in allowed.into_iter().flatten().filter_map(Value::as_str) {
            if let Ok(room) = <&RoomId>::try_from(room)
                && self.is_joined(user, room)?
            {
                return Ok(true);
            }
        }
        let Some(room_id) = text("room_id").and_then(|id| OwnedRoomId::try_from(id).ok()) else { return Ok(false) };
        Ok(self.standing(user, &room_id)?.is_some_and(|standing| standing.membership == Membership::Invite))
    }

    fn space_room(&self, room: &Room, suggested_only: bool) -> Result<Value, Error> {
        let children = self.children_of(room, suggested_only)?;
        let shown = self.hierarchy_room(room, &children)?;
        serde_json::to_value(shown).map_err(|error| Error::internal(error.to_string()))
    }

    /// A page of the rooms of a space that the user may know of, depth first.
    ///
    /// # Errors
    /// [`Error::Forbidden`] for a space that is unknown or closed to the user; [`Error::InvalidParam`] for a token that is none.
    pub async fn space_hierarchy(
        self: &Arc<Self>,
        user: &UserId,
        space: &RoomId,
        request: &SpaceRequest,
    ) -> Result<SpacePage, Error> {
        let offset = match &request.from {
            Some(from) => from
                .strip_prefix('r')
                .and_then(|offset| offset.parse::<usize>().ok())
                .ok_or_else(|| Error::invalid("this is not a token of this server"))?,
            None => 0,
        };
        let limit = request.limit.map_or(MAX_LIMIT, |limit| usize::try_from(limit).unwrap_or(MAX_LIMIT));
        let limit = limit.clamp(1, MAX_LIMIT);
        let max_depth = request.max_depth.unwrap_or(MAX_DEPTH).min(MAX_DEPTH);
        let mut walk = Walk {
            core: self,
            user,
            suggested_only: request.suggested_only,
            asked: 0,
            told: HashMap::new(),
            closed: BTreeSet::new(),
        };
        let mut rooms = Vec::new();
        let mut seen: BTreeSet<OwnedRoomId> = BTreeSet::from([space.to_owned()]);
        let mut waiting = vec![(space.to_owned(), Vec::new(), 0_u64)];
        let mut more = false;
        while let Some((room_id, via, depth)) = waiting.pop() {
            let Some(room) = walk.room(&room_id, &via).await? else {
                if room_id == space {
                    return Err(Error::forbidden("this space is not known, or not open to you"));
                }
                continue;
            };
            if rooms.len() >= offset.saturating_add(limit) {
                more = true;
                break;
            }
            if depth < max_depth {
                for child in children(&room).into_iter().rev() {
                    if seen.len() < MAX_VISITED && seen.insert(child.room_id.clone()) {
                        waiting.push((child.room_id, child.via, depth.saturating_add(1)));
                    }
                }
            }
            rooms.push(room);
        }
        let end = offset.saturating_add(limit);
        Ok(SpacePage { rooms: rooms.into_iter().skip(offset).collect(), next_batch: more.then(|| format!("r{end}")) })
    }
}

impl Walk<'_> {
    /// The room, if the user may know of it.
    async fn room(&mut self, room_id: &RoomId, via: &[OwnedServerName]) -> Result<Option<Value>, Error> {
        if let Some(room) = self.core.find_room(room_id)?.filter(|room| room.has_server(&self.core.server_name)) {
            if !self.core.may_preview(Some(self.user), &room)? {
                return Ok(None);
            }
            return self.core.space_room(&room, self.suggested_only).map(Some);
        }
        if let Some(told) = self.told.remove(room_id) {
            return Ok(self.core.may_preview_told(self.user, &told)?.then_some(told));
        }
        // SPEC: v1.19 Server-Server API, "Spaces": what is told as inaccessible is not asked for again.
        if !self.core.settings.federation || self.closed.contains(room_id) {
            return Ok(None);
        }
        for server in self.core.candidate_servers(room_id, via, None).into_iter().take(2) {
            if self.asked >= MAX_ASKED {
                return Ok(None);
            }
            self.asked = self.asked.saturating_add(1);
            let Ok(answer) = self.core.remote_hierarchy(&server, room_id, self.suggested_only).await else { continue };
            let Some(room) = answer.get("room").filter(|room| names(room, room_id)) else { continue };
            // A server speaks for the rooms that this one names.
            let named: BTreeSet<OwnedRoomId> = children(room).into_iter().map(|child| child.room_id).collect();
            for child in answer.get("children").and_then(Value::as_array).into_iter().flatten() {
                // Only rooms without children of their own are told whole here.
                let leaf = child.get("room_type").and_then(Value::as_str) != Some("m.space");
                if let Some(id) =
                    child.get("room_id").and_then(Value::as_str).and_then(|id| OwnedRoomId::try_from(id).ok())
                    && leaf
                    && named.contains(&id)
                {
                    self.told.insert(id, child.clone());
                }
            }
            let closed = answer.get("inaccessible_children").and_then(Value::as_array);
            let closed = closed.into_iter().flatten().filter_map(|id| OwnedRoomId::try_from(id.as_str()?).ok());
            self.closed.extend(closed.filter(|id| named.contains(id)).take(MAX_VISITED));
            return Ok(self.core.may_preview_told(self.user, room)?.then(|| room.clone()));
        }
        Ok(None)
    }
}

fn names(room: &Value, room_id: &RoomId) -> bool {
    room.get("room_id").and_then(Value::as_str) == Some(room_id.as_str())
}

fn children(room: &Value) -> Vec<ChildState> {
    let list = room.get("children_state").and_then(Value::as_array);
    let read = |child: &Value| -> Option<ChildState> {
        let room_id = OwnedRoomId::try_from(child.get("state_key")?.as_str()?).ok()?;
        Some(ChildState { room_id, via: ChildContent::read(child.get("content")?)?.via })
    };
    list.into_iter().flatten().filter_map(read).collect()
}

//! Upgrading a room: a new one of another version takes its place (Client-Server API, "Room upgrades").

use std::sync::Arc;

use matron_room::{Membership, Pdu, RoomVersion};
use ruma::{OwnedRoomId, OwnedUserId, RoomId, UserId};
use serde_json::{Map, Value, json};

use super::{Room, room::Inner, send::NewEvent, state_map::GroupId};
use crate::{
    Core, Error, Requester,
    push::{Kind, Place, RuleBody},
};

/// State with an empty key that goes over as it is.
const CARRIED: [&str; 11] = [
    "m.room.join_rules",
    "m.room.history_visibility",
    "m.room.guest_access",
    "m.room.name",
    "m.room.topic",
    "m.room.avatar",
    "m.room.encryption",
    "m.room.server_acl",
    "m.room.retention",
    "m.room.policy",
    "org.matron.room.policy",
];
/// How many bans, and how many children of a space, go over.
const MAX_CARRIED: usize = 1_000;

/// What of the old room the new one begins with.
struct Carried {
    create: Map<String, Value>,
    levels: Value,
    state: Vec<(String, String, Value)>,
    canonical_alias: Option<Value>,
}

impl Core {
    /// A room of the new version stands in for the old one: its state, aliases and listing went over, the old one
    /// says so. Gives the new room's id.
    ///
    /// # Errors
    /// [`Error::UnsupportedRoomVersion`]; [`Error::NotFound`] for an unknown room; [`Error::Forbidden`] for anyone who
    /// may not end the old one; as [`Core::create_room`].
    pub async fn upgrade_room(
        self: &Arc<Self>,
        requester: &Requester,
        old_id: &RoomId,
        new_version: &str,
        additional_creators: &[OwnedUserId],
    ) -> Result<OwnedRoomId, Error> {
        let user = &requester.user_id;
        let version = self.creatable_version(Some(new_version))?;
        let old = self.open_room(old_id)?;
        self.require_joined(&old, user)?;
        self.permit_tombstone(&old, user).await?;
        let carried = {
            let mut inner = old.lock();
            if !inner.power_levels(self)?.can_send(user, "m.room.tombstone", true) {
                return Err(Error::forbidden("you may not upgrade this room"));
            }
            self.carried_over(&mut inner, &old)?
        };
        let privileged = version.rules.authorization.explicitly_privilege_room_creators;
        let levels = new_levels(&carried.levels, user, additional_creators, privileged);
        let first_levels = if privileged { levels.clone() } else { raised(&levels, user) };
        let mut create = carried.create.clone();
        create.insert("room_version".to_owned(), json!(version.as_str()));
        if privileged && !additional_creators.is_empty() {
            create.insert("additional_creators".to_owned(), json!(additional_creators));
        }
        if !version.rules.authorization.use_room_create_sender {
            create.insert("creator".to_owned(), json!(user));
        }
        let state = self.state_to_begin_with(user, old_id, &first_levels, &carried)?;

        let new_id = self.replace(user, &old, version, create, state).await?;
        if first_levels != levels {
            let new = NewEvent::state(new_id.clone(), user.clone(), "m.room.power_levels", "", levels);
            self.send_event(new).await?;
        }
        self.move_aliases(old_id, &new_id).await?;
        if let Some(alias) = carried.canonical_alias.filter(|alias| *alias != json!({})) {
            let old_room = NewEvent::state(old_id.to_owned(), user.clone(), "m.room.canonical_alias", "", json!({}));
            let new_room = NewEvent::state(new_id.clone(), user.clone(), "m.room.canonical_alias", "", alias);
            self.send_if_allowed(old_room).await;
            self.send_if_allowed(new_room).await;
        }
        self.move_listing(old_id, &new_id).await?;
        // The joining came before the tombstone: see `follow_upgrade`.
        self.carry_settings(user, old_id, &new_id).await?;
        if let Some(silent) = silenced(&carried.levels) {
            self.send_if_allowed(NewEvent::state(old_id.to_owned(), user.clone(), "m.room.power_levels", "", silent))
                .await;
        }
        Ok(new_id)
    }

    /// The user's tombstone would be taken now: a refusal that came when the new room is there would leave that behind.
    async fn permit_tombstone(&self, old: &Room, user: &UserId) -> Result<(), Error> {
        // It leads nowhere yet, and nobody looks at where.
        let content = json!({"body": "This room has been replaced"});
        let new = NewEvent::state(old.id().to_owned(), user.to_owned(), "m.room.tombstone", "", content);
        let refused = {
            let mut inner = old.lock();
            self.permit_local(old, &mut inner, &new).err()
        };
        match refused {
            None => Ok(()),
            Some(refusal) => Err(refusal.recorded().await),
        }
    }

    /// The new room exists, and the old one's tombstone leads there.
    async fn replace(
        self: &Arc<Self>,
        user: &UserId,
        old: &Arc<Room>,
        version: &'static RoomVersion,
        mut create: Map<String, Value>,
        state: Vec<NewEvent>,
    ) -> Result<OwnedRoomId, Error> {
        let tombstone = |new_id: &RoomId| {
            let content = json!({"body": "This room has been replaced", "replacement_room": new_id});
            NewEvent::state(old.id().to_owned(), user.to_owned(), "m.room.tombstone", "", content)
        };
        let Some(new_id) = self.fresh_room_id(version)? else {
            // SPEC: room version 12: the new room's id is not known before its create event.
            create.insert("predecessor".to_owned(), json!({"room_id": old.id()}));
            let new_id = self.found_and_open(user, version, None, Value::Object(create), state).await?;
            self.send_event(tombstone(&new_id)).await?;
            return Ok(new_id);
        };
        // The create event names the tombstone, so that is sealed before, and sent when there is a room to lead to.
        let new = tombstone(&new_id);
        let (pdu, state_before) = {
            let mut inner = old.lock();
            let pdu = self.seal_local(old, &mut inner, &new)?;
            self.authorise(&mut inner, &pdu)?;
            (pdu, GroupId(inner.head.group.0))
        };
        let pdu = self.recommended_to_send(old, pdu).await?;
        create.insert("predecessor".to_owned(), json!({"room_id": old.id(), "event_id": pdu.event_id()}));
        let new_id = self.found_and_open(user, version, Some(new_id), Value::Object(create), state).await?;
        let appended = {
            let mut inner = old.lock();
            self.append_sealed(old, &mut inner, &new, pdu, state_before)
        };
        match appended {
            Ok(appending) => self.finish_append(appending).await?,
            Err(refusal) => return Err(refusal.recorded().await),
        };
        Ok(new_id)
    }

    async fn send_if_allowed(self: &Arc<Self>, new: NewEvent) {
        let room = new.room_id.clone();
        if let Err(error) = self.send_event(new).await {
            tracing::debug!(room.id = %room, %error, "a part of a room's upgrade is left out");
        }
    }

    fn carried_over(&self, inner: &mut Inner, old: &Room) -> Result<Carried, Error> {
        let content = |pdu: Option<Pdu>| pdu.map(|pdu| pdu.content_value());
        let mut create = match content(inner.state_pdu(self, "m.room.create", "")?) {
            Some(Value::Object(create)) => create,
            _ => return Err(Error::not_found("this room is not known")),
        };
        for field in ["creator", "room_version", "predecessor", "additional_creators"] {
            create.remove(field);
        }
        let levels = content(inner.state_pdu(self, "m.room.power_levels", "")?).unwrap_or_else(|| json!({}));
        let mut state = Vec::new();
        for kind in CARRIED {
            if let Some(content) = content(inner.state_pdu(self, kind, "")?) {
                state.push((kind.to_owned(), String::new(), content));
            } else if kind == "m.room.guest_access" {
                state.push((kind.to_owned(), String::new(), json!({"guest_access": "forbidden"})));
            }
        }
        let keyed: Vec<_> = inner
            .current
            .iter()
            .filter(|(key, _)| matches!(&*key.kind, "m.room.member" | "m.space.child"))
            .map(|(key, id)| (key.clone(), Arc::clone(id)))
            .collect();
        let mut taken = 0;
        for (key, id) in keyed {
            let Some(event) = self.load_event(&id)? else { continue };
            let is_ban = event.pdu.membership_state() == Some(Membership::Ban);
            let is_child = &*key.kind == "m.space.child" && event.pdu.content_str() != "{}";
            if (is_ban || is_child) && taken < MAX_CARRIED {
                taken += 1;
                state.push((key.kind.to_string(), key.key.to_string(), event.pdu.content_value()));
            }
        }
        tracing::debug!(room.id = %old.id(), events = state.len(), "state goes over to a new room");
        Ok(Carried {
            create,
            levels,
            state,
            canonical_alias: content(inner.state_pdu(self, "m.room.canonical_alias", "")?),
        })
    }

    fn state_to_begin_with(
        &self,
        user: &UserId,
        old_id: &RoomId,
        levels: &Value,
        carried: &Carried,
    ) -> Result<Vec<NewEvent>, Error> {
        let join = self.member_content(user, Membership::Join, None)?;
        // The room's id is filled in when the create event has told it.
        let new = |kind: &str, key: &str, content: Value| {
            NewEvent::state(old_id.to_owned(), user.to_owned(), kind, key, content)
        };
        let mut state = vec![new("m.room.member", user.as_str(), join), new("m.room.power_levels", "", levels.clone())];
        state.extend(carried.state.iter().map(|(kind, key, content)| new(kind, key, content.clone())));
        Ok(state)
    }

    /// The new room is listed instead of the old one, if that was.
    async fn move_listing(&self, old: &RoomId, new: &RoomId) -> Result<(), Error> {
        if self.is_room_listed(old)? {
            self.publish_room(new, true).await?;
            self.publish_room(old, false).await?;
        }
        Ok(())
    }

    /// What a local user set for a room goes over to its successor, and so do this server's aliases and listing of it:
    /// called when the user joins the successor.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(crate) async fn follow_upgrade(self: &Arc<Self>, user: &UserId, new: &Room) -> Result<(), Error> {
        let create: Option<Value> = new.lock().state_content(self, "m.room.create", "")?;
        let old_id = create
            .as_ref()
            .and_then(|create| create.get("predecessor")?.get("room_id")?.as_str())
            .and_then(|id| OwnedRoomId::try_from(id).ok());
        let Some(old_id) = old_id else { return Ok(()) };
        let new_id = new.id();
        // A change of a member who was there before is no joining.
        let joining = self.standing(user, new_id)?.and_then(|standing| standing.event_id);
        if let Some(joining) = joining
            && let Some(joining) = self.load_event(&joining)?
            && self.membership_in(&self.load_state_group(joining.record.state_before)?, user)? == Membership::Join
        {
            return Ok(());
        }
        // The old room must agree, or any room could take another's place.
        let Some(old) = self.find_room(&old_id)? else { return Ok(()) };
        let tombstone: Option<Value> = old.lock().state_content(self, "m.room.tombstone", "")?;
        let replacement = tombstone.as_ref().and_then(|tombstone| tombstone.get("replacement_room")?.as_str());
        if replacement != Some(new_id.as_str()) {
            return Ok(());
        }
        self.carry_settings(user, &old_id, new_id).await?;
        self.move_aliases(&old_id, new_id).await?;
        self.move_listing(&old_id, new_id).await
    }

    /// Tags, the mark of a direct chat and the push rule of a room stand for its successor too.
    async fn carry_settings(self: &Arc<Self>, user: &UserId, old: &RoomId, new: &RoomId) -> Result<(), Error> {
        for (tag, value) in self.tags(user, old)? {
            self.set_tag(user, new, &tag, Some(value)).await?;
        }
        self.carry_direct(user, old, new).await?;
        if let Ok(rule) = self.push_rule(user, Kind::Room, old.as_str()) {
            let body = RuleBody { actions: rule.actions, conditions: None, pattern: None };
            self.put_push_rule(user, Kind::Room, new.as_str(), body, Place::default()).await?;
        }
        Ok(())
    }

    async fn carry_direct(self: &Arc<Self>, user: &UserId, old: &RoomId, new: &RoomId) -> Result<(), Error> {
        let Some(direct) = self.find_account_data(user, None, "m.direct")? else { return Ok(()) };
        let Ok(mut direct) = serde_json::from_str::<Map<String, Value>>(direct.get()) else { return Ok(()) };
        let mut changed = false;
        for rooms in direct.values_mut().filter_map(Value::as_array_mut) {
            if rooms.contains(&json!(old)) && !rooms.contains(&json!(new)) {
                rooms.push(json!(new));
                changed = true;
            }
        }
        if changed {
            self.write_account_data(user, None, "m.direct", &Value::Object(direct).to_string()).await?;
        }
        Ok(())
    }
}

/// The power levels of the new room: those of the old one; creators that need none have none.
fn new_levels(old: &Value, user: &UserId, additional: &[OwnedUserId], privileged: bool) -> Value {
    let mut levels = old.clone();
    if !privileged {
        return levels;
    }
    if let Some(users) = levels.get_mut("users").and_then(Value::as_object_mut) {
        users.remove(user.as_str());
        for creator in additional {
            users.remove(creator.as_str());
        }
    }
    if let Value::Object(levels) = &mut levels {
        let events = levels.entry("events").or_insert_with(|| json!({}));
        if let Value::Object(events) = events {
            // SPEC: room version 12: a tombstone needs more than an administrator.
            events.insert("m.room.tombstone".to_owned(), json!(150));
        }
    }
    levels
}

/// The levels with which the upgrading user may send everything that goes over.
fn raised(levels: &Value, user: &UserId) -> Value {
    let needed = levels
        .get("events")
        .and_then(Value::as_object)
        .into_iter()
        .flat_map(Map::values)
        .chain(["state_default", "events_default", "ban"].iter().filter_map(|field| levels.get(*field)))
        .filter_map(Value::as_i64)
        .max()
        .unwrap_or(0)
        .max(100);
    let mut levels = levels.clone();
    if let Value::Object(levels) = &mut levels {
        let default = levels.get("users_default").and_then(Value::as_i64).unwrap_or(0);
        let users = levels.entry("users").or_insert_with(|| json!({}));
        if let Value::Object(users) = users {
            let own = users.get(user.as_str()).and_then(Value::as_i64).unwrap_or(default);
            if own < needed {
                users.insert(user.to_string(), json!(needed));
            }
        }
    }
    levels
}

/// The levels with which ordinary members of the old room speak no more; `None` if they do not already.
fn silenced(levels: &Value) -> Option<Value> {
    let number = |field: &str, otherwise: i64| levels.get(field).and_then(Value::as_i64).unwrap_or(otherwise);
    let quiet = number("users_default", 0).saturating_add(1).max(50);
    let mut silent = levels.as_object()?.clone();
    let mut changed = false;
    for (field, otherwise) in [("events_default", 0), ("invite", 0)] {
        if number(field, otherwise) < quiet {
            silent.insert(field.to_owned(), json!(quiet));
            changed = true;
        }
    }
    changed.then_some(Value::Object(silent))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_of_the_old_room_need_more_than_the_default_to_speak() {
        let silent = silenced(&json!({"users_default": 80, "invite": 100})).unwrap();
        assert_eq!(silent, json!({"users_default": 80, "invite": 100, "events_default": 81}));
        assert_eq!(silenced(&json!({"events_default": 50, "invite": 50})), None);
    }

    #[test]
    fn the_upgrading_user_may_send_all_that_goes_over_and_nobody_loses_power() {
        let user: &UserId = "@a:b".try_into().unwrap();
        let levels = json!({"users": {"@a:b": 50, "@c:d": 500}, "events": {"m.room.name": 120}});
        let raised = raised(&levels, user);
        assert_eq!(raised["users"], json!({"@a:b": 120, "@c:d": 500}));
    }
}

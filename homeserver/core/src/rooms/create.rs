//! Creating a room (Client-Server API, `POST /createRoom`).

use std::sync::Arc;

use matron_policy::ROOM_POLICY_TYPE;
use matron_room::{CreateNonce, DraftPdu, Membership, RoomVersion};
use matron_storage::CommitError;
use ruma::{OwnedRoomId, OwnedUserId, UserId};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    Room,
    append::{Append, AppendingTogether},
    send::{NewEvent, seal_error},
    state_map::{GroupId, StateKey, StateMap},
};
use crate::{Core, Error, governance::Refusal, identity::AddressInvite};

/// How many addresses a new room may invite.
const MAX_ADDRESS_INVITES: usize = 20;

/// What a client wants.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct CreateRoom {
    /// `public` or `private` in the directory.
    pub visibility: Option<String>,
    /// The local part of an alias to create.
    pub room_alias_name: Option<String>,
    /// The name.
    pub name: Option<String>,
    /// The topic.
    pub topic: Option<String>,
    /// Whom to invite.
    pub invite: Vec<OwnedUserId>,
    /// Whom to invite by address.
    pub invite_3pid: Vec<AddressInvite>,
    /// The version.
    pub room_version: Option<String>,
    /// What else stands in the create event.
    pub creation_content: Option<Map<String, Value>>,
    /// State to begin with.
    pub initial_state: Vec<InitialState>,
    /// `private_chat`, `public_chat` or `trusted_private_chat`.
    pub preset: Option<String>,
    /// Whether the invites are for a direct chat.
    pub is_direct: bool,
    /// What replaces parts of the default power levels.
    pub power_level_content_override: Option<Map<String, Value>>,
}

/// One piece of state to begin with.
#[derive(Clone, Debug, Deserialize)]
pub struct InitialState {
    /// The type.
    #[serde(rename = "type")]
    pub kind: String,
    /// The state key; empty if absent.
    #[serde(default)]
    pub state_key: String,
    /// The content.
    pub content: Value,
}

/// The state that a preset stands for.
struct Preset {
    join_rule: &'static str,
    guest_access: &'static str,
    trusted: bool,
}

impl Preset {
    fn of(request: &CreateRoom) -> Result<Self, Error> {
        let public = request.visibility.as_deref() == Some("public");
        Ok(match request.preset.as_deref() {
            Some("public_chat") => Self { join_rule: "public", guest_access: "forbidden", trusted: false },
            Some("private_chat") => Self { join_rule: "invite", guest_access: "can_join", trusted: false },
            Some("trusted_private_chat") => Self { join_rule: "invite", guest_access: "can_join", trusted: true },
            None if public => Self { join_rule: "public", guest_access: "forbidden", trusted: false },
            None => Self { join_rule: "invite", guest_access: "can_join", trusted: false },
            Some(_) => return Err(Error::bad_json("this preset is not known")),
        })
    }
}

impl Core {
    /// The room exists, with everything that was asked; invites to other servers that fail are left out.
    ///
    /// # Errors
    /// [`Error::UnsupportedRoomVersion`], [`Error::InvalidRoomState`], [`Error::RoomInUse`] for a taken alias,
    /// [`Error::PolicyDenied`], [`Error::BadJson`]; as [`Core::invite_by_address`], with the room there already unless it is
    /// `M_SERVER_NOT_TRUSTED`.
    pub async fn create_room(self: &Arc<Self>, creator: &UserId, request: CreateRoom) -> Result<OwnedRoomId, Error> {
        let version = self.creatable_version(request.room_version.as_deref())?;
        let preset = Preset::of(&request)?;
        if request.invite_3pid.len() > MAX_ADDRESS_INVITES {
            return Err(Error::invalid("so many people cannot be invited by address at once"));
        }
        self.check_address_invites(&request.invite_3pid)?;
        if !matches!(request.visibility.as_deref(), None | Some("public" | "private")) {
            return Err(Error::bad_json("visibility is public or private"));
        }
        let alias = match &request.room_alias_name {
            Some(local) => Some(self.new_local_alias(creator, local)?),
            None => None,
        };
        if request.visibility.as_deref() == Some("public") {
            self.check_may_publish(creator)?;
        }
        let create = create_content(creator, version, &preset, &request)?;
        let mut state = self.initial_state(creator, version, &preset, &request, alias.as_deref())?;
        self.add_obliged_state(creator, &create, &mut state)?;
        let room_id = self.found_and_open(creator, version, self.fresh_room_id(version)?, create, state).await?;
        if let Some(alias) = alias {
            self.set_alias(creator, &alias, &room_id).await?;
        }
        if request.visibility.as_deref() == Some("public") {
            self.publish_room(&room_id, true).await?;
        }
        for invitee in &request.invite {
            if let Err(error) = self.invite(creator, &room_id, invitee, None, request.is_direct).await {
                if self.is_local_user(invitee) {
                    return Err(error);
                }
                tracing::info!(room.id = %room_id, %error, "an invite to another server failed");
            }
        }
        for invite in &request.invite_3pid {
            self.invite_by_address(creator, &room_id, invite, None, request.is_direct).await?;
        }
        Ok(room_id)
    }

    /// The room exists, with this state after the create event.
    ///
    /// # Errors
    /// As [`Core::create_room`].
    pub(super) async fn found_and_open(
        self: &Arc<Self>,
        creator: &UserId,
        version: &'static RoomVersion,
        room_id: Option<OwnedRoomId>,
        create: Value,
        state: Vec<NewEvent>,
    ) -> Result<OwnedRoomId, Error> {
        let (room, appending) = match self.found_room(creator, version, room_id, create, state) {
            Ok(founded) => founded,
            Err(refusal) => return Err(refusal.recorded().await),
        };
        match self.finish_together(appending).await {
            Ok(()) => Ok(room.id().to_owned()),
            Err(CommitError::Conflict(_)) => {
                // Another writer of the audit log was first: nothing of the room exists.
                self.resume_after_conflict()?;
                Err(Error::LimitExceeded { retry_after_ms: 100 })
            }
            Err(error) => Err(error.into()),
        }
    }

    pub(super) fn creatable_version(&self, asked: Option<&str>) -> Result<&'static RoomVersion, Error> {
        let id = asked.unwrap_or(&self.settings.default_room_version);
        if !self.settings.room_versions.iter().any(|known| known == id) {
            return Err(Error::UnsupportedRoomVersion);
        }
        RoomVersion::find(id).ok_or(Error::UnsupportedRoomVersion)
    }

    /// An id for a new room, unless the version makes it from the create event.
    pub(super) fn fresh_room_id(&self, version: &'static RoomVersion) -> Result<Option<OwnedRoomId>, Error> {
        if version.has_hashed_room_id() {
            return Ok(None);
        }
        let localpart: [u8; 18] = rand::random();
        let localpart = base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, localpart);
        OwnedRoomId::try_from(format!("!{localpart}:{}", self.server_name))
            .map(Some)
            .map_err(|_| Error::internal("a room id that is none"))
    }

    /// The room's first events, all on their way in one commit: nobody ever sees half a room.
    fn found_room(
        &self,
        creator: &UserId,
        version: &'static RoomVersion,
        room_id: Option<OwnedRoomId>,
        create: Value,
        state: Vec<NewEvent>,
    ) -> Result<(Arc<Room>, AppendingTogether), Refusal> {
        let mut draft = DraftPdu::new(room_id, creator.to_owned(), "m.room.create", create).with_state_key("");
        draft.origin_server_ts_ms = self.now_ms();
        draft.nonce = Some(CreateNonce::from_random(rand::random()));
        let pdu = draft.seal(version, &self.signing_key, &self.server_name).map_err(seal_error)?;

        let room = Arc::new(Room::empty(pdu.room_id().to_owned(), version));
        let permit = self.permit_create(creator, &room, &pdu.content_value(), &state)?;
        let mut inner = room.lock();
        self.authorise(&mut inner, &pdu)?;
        let mut after = StateMap::new();
        after.insert(StateKey::new("m.room.create", ""), Arc::new(pdu.event_id().to_owned()));
        let mut item = Append::local(pdu, GroupId::EMPTY, Some(after));
        permit.write(&mut item.with)?;
        let mut staged = vec![self.stage(&room, &mut inner, item)?];
        for mut new in state {
            new.room_id = room.id().to_owned();
            let pdu = self.seal_local(&room, &mut inner, &new)?;
            self.authorise(&mut inner, &pdu)?;
            // Nobody else is in the room yet: no other policy server can be in use.
            let (pdu, _nobody) = self.recommend_own(&mut inner, pdu)?;
            let before = GroupId(inner.head.group.0);
            let mut after = inner.current.clone();
            if let Some(key) = pdu.state_key() {
                after.insert(StateKey::new(pdu.kind(), key), Arc::new(pdu.event_id().to_owned()));
            }
            staged.push(self.stage(&room, &mut inner, Append::local(pdu, before, Some(after)))?);
        }
        let appending = self.submit_together(staged)?;
        permit.submitted();
        // INVARIANT: open while the pen is held, so that nobody opens the room from the store beside this one.
        let room = self.rooms.keep_open(Arc::clone(&room));
        drop(inner);
        Ok((room, appending))
    }

    /// What follows the create event, in the specification's order.
    fn initial_state(
        &self,
        creator: &UserId,
        version: &'static RoomVersion,
        preset: &Preset,
        request: &CreateRoom,
        alias: Option<&str>,
    ) -> Result<Vec<NewEvent>, Error> {
        let mut join = self.member_content(creator, Membership::Join, None)?;
        if let (true, Value::Object(join)) = (request.is_direct, &mut join) {
            join.insert("is_direct".to_owned(), json!(true));
        }
        let mut state: Vec<(String, String, Value)> = vec![
            ("m.room.member".to_owned(), creator.to_string(), join),
            ("m.room.power_levels".to_owned(), String::new(), power_levels(creator, version, preset, request)?),
        ];
        let mut put = |kind: &str, content: Value| {
            let given = request.initial_state.iter().any(|given| given.kind == kind && given.state_key.is_empty());
            if !given {
                state.push((kind.to_owned(), String::new(), content));
            }
        };
        if let Some(alias) = alias {
            put("m.room.canonical_alias", json!({"alias": alias}));
        }
        put("m.room.join_rules", json!({"join_rule": preset.join_rule}));
        put("m.room.history_visibility", json!({"history_visibility": "shared"}));
        // Without one, guests are kept out; where policy has a say, whatever the preset.
        let is_governed =
            !self.rules().ordinary || request.initial_state.iter().any(|one| one.kind == ROOM_POLICY_TYPE);
        if preset.guest_access != "forbidden" && !is_governed {
            put("m.room.guest_access", json!({"guest_access": preset.guest_access}));
        }
        for given in &request.initial_state {
            if matches!(given.kind.as_str(), "m.room.create" | "m.room.member") {
                return Err(Error::InvalidRoomState("the initial state cannot hold create or member events".into()));
            }
            if given.kind == "m.room.power_levels" && given.state_key.is_empty() {
                if let Some(levels) = state.iter_mut().find(|(kind, ..)| kind == "m.room.power_levels") {
                    levels.2 = given.content.clone();
                }
                continue;
            }
            state.push((given.kind.clone(), given.state_key.clone(), given.content.clone()));
        }
        if let Some(name) = &request.name {
            state.push(("m.room.name".to_owned(), String::new(), json!({"name": name})));
        }
        if let Some(topic) = &request.topic {
            let content = json!({"topic": topic, "m.topic": {"m.text": [{"body": topic}]}});
            state.push(("m.room.topic".to_owned(), String::new(), content));
        }
        // The room id is set when the create event has told it.
        let nowhere = || {
            OwnedRoomId::try_from(format!("!unset:{}", self.server_name))
                .map_err(|_| Error::internal("a room id that is none"))
        };
        state
            .into_iter()
            .map(|(kind, key, content)| Ok(NewEvent::state(nowhere()?, creator.to_owned(), kind, key, content)))
            .collect()
    }
}

fn create_content(
    creator: &UserId,
    version: &'static RoomVersion,
    preset: &Preset,
    request: &CreateRoom,
) -> Result<Value, Error> {
    let mut content = request.creation_content.clone().unwrap_or_default();
    content.insert("room_version".to_owned(), json!(version.as_str()));
    if version.rules.authorization.use_room_create_sender {
        content.remove("creator");
    } else {
        content.insert("creator".to_owned(), json!(creator));
    }
    let additional = version.rules.authorization.additional_room_creators;
    if let Some(given) = content.get("additional_creators").filter(|_| additional) {
        let users: Option<Vec<&str>> = given.as_array().map(|list| list.iter().filter_map(Value::as_str).collect());
        let valid = users.is_some_and(|users| {
            Some(users.len()) == given.as_array().map(Vec::len)
                && users.iter().all(|user| <&UserId>::try_from(*user).is_ok())
        });
        if !valid {
            return Err(Error::bad_json("additional_creators is a list of user ids"));
        }
    }
    if additional && preset.trusted && !request.invite.is_empty() {
        let mut all: Vec<Value> =
            content.get("additional_creators").and_then(Value::as_array).cloned().unwrap_or_default();
        for invitee in &request.invite {
            if !all.contains(&json!(invitee)) {
                all.push(json!(invitee));
            }
        }
        content.insert("additional_creators".to_owned(), Value::Array(all));
    }
    Ok(Value::Object(content))
}

fn power_levels(
    creator: &UserId,
    version: &'static RoomVersion,
    preset: &Preset,
    request: &CreateRoom,
) -> Result<Value, Error> {
    let privileged = version.rules.authorization.explicitly_privilege_room_creators;
    let mut users = Map::new();
    if !privileged {
        users.insert(creator.to_string(), json!(100));
        if preset.trusted {
            for invitee in &request.invite {
                users.insert(invitee.to_string(), json!(100));
            }
        }
    }
    let tombstone = if privileged { 150 } else { 100 };
    let mut content = json!({
        "users": users,
        "users_default": 0,
        "events": {
            "m.room.name": 50,
            "m.room.power_levels": 100,
            "m.room.history_visibility": 100,
            "m.room.canonical_alias": 50,
            "m.room.avatar": 50,
            "m.room.tombstone": tombstone,
            "m.room.server_acl": 100,
            "m.room.encryption": 100,
        },
        "events_default": 0,
        "state_default": 50,
        "ban": 50,
        "kick": 50,
        "redact": 50,
        "invite": 0,
        "notifications": {"room": 50},
    });
    if let (Some(overrides), Value::Object(content)) = (&request.power_level_content_override, &mut content) {
        for (key, value) in overrides {
            content.insert(key.clone(), value.clone());
        }
    }
    if privileged
        && content.get("users").and_then(Value::as_object).is_some_and(|users| users.contains_key(creator.as_str()))
    {
        return Err(Error::bad_json("creators of this room version have no power level to set"));
    }
    Ok(content)
}
